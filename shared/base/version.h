// Which Penstock this is: the project's version, of which CMakeLists.txt is the source.
#pragma once

#include <cstdio>
#include <string_view>

namespace penstock {

// "0.1.0"
const char* version() noexcept;

// Where the first argument is --version or -V: says "PROGRAM VERSION" on stdout, and true.
inline bool say_version(const char* program, int argc, const char* const* argv) {
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first != "--version" && first != "-V") {
    return false;
  }
  std::printf("%s %s\n", program, version());
  return true;
}

}  // namespace penstock
