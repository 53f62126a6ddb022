// Text by characters, as Python counts it: lengths and places in code points, white space as
// str.isspace() has it, letters of either case. Only ASCII letters have case here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::llama::jinja {

// Characters of the text. O(bytes).
int64_t length_of(std::string_view text);
// The byte at which character `index` begins; the text's size if it has fewer. O(bytes).
size_t offset_of(std::string_view text, int64_t index);

// Bytes of white space at either end; with `set`, of the characters in it.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);
size_t leading_of(std::string_view text, std::string_view set);
size_t trailing_of(std::string_view text, std::string_view set);

// Each the same number of bytes as before. kTitle: a word begins after what is no letter
// (str.title); kWords: after white space, "-", "(", "{", "[" or "<" (the filter `title`).
enum class Case { kLower, kUpper, kTitle, kWords, kCapital };
std::string in_case(std::string_view text, Case wanted);

// What stands between the quotes of a string, its escapes resolved as Python does.
std::string unescaped(std::string_view text);

}  // namespace penstock::llama::jinja
