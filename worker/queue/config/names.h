// Names and paths in penstock.yaml.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "shared/wire/status_page.h"

namespace penstock::queue {

constexpr size_t kMaxNameBytes = wire::kQueueNameBytes - 1;

// Whether a queue or a worker may have this name.
inline bool good_name(std::string_view name) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  return !name.empty() && name.size() <= kMaxNameBytes && name.front() != '-' &&
         name.find_first_not_of(kAllowed) == std::string_view::npos;
}

inline std::string name_rule() {
  return "a name is 1 to " + std::to_string(kMaxNameBytes) +
         " letters, digits, '_', '.' or '-', and does not begin with '-'";
}

// A path that the file names, from the file's own folder. REQUIRES: it is not empty.
inline std::string relative_to(const std::string& file, const std::string& path) {
  const size_t slash = file.rfind('/');
  return path.front() == '/' || slash == std::string::npos ? path
                                                           : file.substr(0, slash + 1) + path;
}

}  // namespace penstock::queue
