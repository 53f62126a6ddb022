// What kind of character a code point is, as far as tokenizers ask. Independent of the locale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock::llama {

enum class CharClass : uint8_t { kOther, kLetter, kNumber, kSpace };  // else, \p{L}, \p{N}, \s

// The class in the table that was made from the Unicode database (make_unicode_class.py).
// O(log ranges), O(1) for ASCII.
CharClass class_of(uint32_t code_point);

struct Char {
  uint32_t code;   // kNoChar for a byte that is not part of valid UTF-8
  uint32_t bytes;  // in the text, 1 .. 4
  CharClass kind;
};
constexpr uint32_t kNoChar = 0xFFFFFFFF;

// The character at `at`. A byte that is no valid UTF-8 is a character of its own, of class kOther,
// so that any bytes can be split and put together again. REQUIRES: at < text.size().
Char char_at(std::string_view text, size_t at);

}  // namespace penstock::llama
