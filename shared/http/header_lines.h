// Header lines: "Name: value\n", one after the other, as one process hands response headers to
// another. Hostile until parsed: a name is a token of RFC 9110 (section 5.6.2), a value is
// printable ASCII, and headers that the HTTP server itself decides on are nobody else's to set.
#pragma once

#include <cstddef>
#include <string_view>

namespace penstock::http {

struct HeaderLine {
  std::string_view name;
  std::string_view value;  // without the blanks around it
};

constexpr size_t kMaxHeaderLines = 16;
constexpr size_t kMaxHeaderValue = 2048;

// Takes the next line off the front of `rest`, which is not empty. Returns nullptr and fills
// `line`, or says which rule was broken.
const char* next_header_line(std::string_view& rest, HeaderLine& line) noexcept;

// Case does not count.
bool same_name(std::string_view a, std::string_view b) noexcept;

}  // namespace penstock::http
