#include "worker/engines/llama/template/characters.h"

#include <algorithm>
#include <charconv>

#include "worker/engines/llama/unicode_class.h"

namespace penstock::llama::jinja {
namespace {

bool begins_character(char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }

bool is_space(const Char& c) {
  return c.kind == CharClass::kSpace || (c.code >= 0x1C && c.code <= 0x1F);
}

// The character that ends where the text does. REQUIRES: the text is not empty.
Char last_char(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && text.size() - at < 4 && !begins_character(text[at])) {
    --at;
  }
  return char_at(text, at);
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
bool is_letter(char c) { return upper(c) != lower(c) || static_cast<unsigned char>(c) >= 0x80; }

void append_utf8(uint32_t code, std::string& out) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += {static_cast<char>(0xC0U | code >> 6), static_cast<char>(0x80U | (code & 0x3FU))};
  } else if (code < 0x10000) {
    out += {static_cast<char>(0xE0U | code >> 12), static_cast<char>(0x80U | (code >> 6 & 0x3FU)),
            static_cast<char>(0x80U | (code & 0x3FU))};
  } else {
    out +=
        {static_cast<char>(0xF0U | code >> 18), static_cast<char>(0x80U | (code >> 12 & 0x3FU)),
         static_cast<char>(0x80U | (code >> 6 & 0x3FU)), static_cast<char>(0x80U | (code & 0x3FU))};
  }
}

// \xHH, \uHHHH, \UHHHHHHHH: the digits from `at` on; what is no character stays as it is spelled.
size_t append_code(std::string_view text, size_t at, size_t digits, std::string& out) {
  uint32_t code = 0;
  const std::string_view hex = text.substr(at, digits);
  const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
  const bool whole = error == std::errc{} && hex.size() == digits && end == hex.data() + digits;
  if (!whole || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
    out += text.substr(at - 2, 2);
    return at;
  }
  append_utf8(code, out);
  return at + digits;
}

}  // namespace

int64_t length_of(std::string_view text) {
  return std::count_if(text.begin(), text.end(), begins_character);
}

size_t offset_of(std::string_view text, int64_t index) {
  size_t at = 0;
  for (; at < text.size(); ++at) {
    if (begins_character(text[at]) && index-- == 0) {
      return at;
    }
  }
  return at;
}

size_t leading_space(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Char c = char_at(text, at);
    if (!is_space(c)) {
      break;
    }
    at += c.bytes;
  }
  return at;
}

size_t trailing_space(std::string_view text) {
  const size_t size = text.size();
  while (!text.empty()) {
    const Char c = last_char(text);
    if (!is_space(c)) {
      break;
    }
    text.remove_suffix(c.bytes);
  }
  return size - text.size();
}

size_t leading_of(std::string_view text, std::string_view set) {
  size_t at = 0;
  while (at < text.size()) {
    const Char c = char_at(text, at);
    if (set.find(text.substr(at, c.bytes)) == set.npos) {
      break;
    }
    at += c.bytes;
  }
  return at;
}

size_t trailing_of(std::string_view text, std::string_view set) {
  const size_t size = text.size();
  while (!text.empty()) {
    const size_t bytes = last_char(text).bytes;
    if (set.find(text.substr(text.size() - bytes)) == set.npos) {
      break;
    }
    text.remove_suffix(bytes);
  }
  return size - text.size();
}

std::string in_case(std::string_view text, Case wanted) {
  std::string out(text);
  bool begins = true;  // a word, or the text
  for (char& c : out) {
    const bool high = wanted == Case::kUpper || (begins && wanted != Case::kLower);
    begins = (wanted == Case::kTitle && !is_letter(c)) ||
             (wanted == Case::kWords &&
              std::string_view("- \t\n\v\f\r({[<").find(c) != std::string_view::npos);
    c = high ? upper(c) : lower(c);
  }
  return out;
}

std::string unescaped(std::string_view text) {
  constexpr std::string_view kNames = "\\'\"abfnrtv";
  constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at++];
    if (c != '\\' || at == text.size()) {
      out += c;
      continue;
    }
    const char escape = text[at++];
    const size_t known = kNames.find(escape);
    if (known != kNames.npos) {
      out += kMeanings[known];
    } else if (escape == 'x' || escape == 'u' || escape == 'U') {
      at = append_code(text, at, escape == 'x' ? 2 : (escape == 'u' ? 4 : 8), out);
    } else if (escape >= '0' && escape <= '7') {
      uint32_t code = escape - '0';
      for (int more = 0; more < 2 && at < text.size() && text[at] >= '0' && text[at] <= '7';
           ++more) {
        code = code * 8 + (text[at++] - '0');
      }
      append_utf8(code, out);
    } else if (escape != '\n') {
      out += {c, escape};
    }
  }
  return out;
}

}  // namespace penstock::llama::jinja
