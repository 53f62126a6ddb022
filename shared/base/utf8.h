// UTF-8, one character at a time: telling a character from one that is cut off from junk.
//
// Source: Unicode 15, table 3-7 (well-formed byte sequences).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace penstock {

struct Utf8Char {
  enum Kind { kWhole, kCutOff, kInvalid } kind;
  size_t bytes;  // kWhole: of the character; kCutOff: all that is there
};

// Judges the character at the front. REQUIRES: text is not empty.
Utf8Char utf8_front(std::string_view text) noexcept;

// Bytes of `text` before a character that is cut off at its end; all of it when none is.
size_t utf8_complete_prefix(std::string_view text) noexcept;

// Offset of the first byte that is not UTF-8; npos when all of it is.
size_t utf8_first_invalid(std::string_view text) noexcept;

// `text` as a line of a log, or of a terminal: each control character (C0, DEL, C1) and each byte
// that is not UTF-8 is a '?', so that no text begins a line of its own or moves a cursor.
std::string one_line(std::string_view text);
// The same, written to `line`, which has room for text.size() bytes. Returns how many it took.
size_t one_line(std::string_view text, char* line) noexcept;

}  // namespace penstock
