// Numbers of JSON texts, and of strings in them.
#pragma once

#include <cstddef>
#include <string_view>

namespace penstock::http {

inline bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// The place after the digits from `i` on.
inline size_t after_digits(std::string_view text, size_t i) noexcept {
  while (i < text.size() && is_digit(text[i])) {
    ++i;
  }
  return i;
}

// RFC 8259, section 6, but for leading zeros: those are the engine's to refuse.
bool is_json_number(std::string_view text) noexcept;

// Infinity: beyond what a double holds. REQUIRES: is_json_number(text).
double to_double(std::string_view text) noexcept;

// The value of a string's text: a number, or the product if it is "WxH". NaN: it is neither.
double string_to_double(std::string_view text) noexcept;

}  // namespace penstock::http
