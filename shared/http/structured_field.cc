#include "shared/http/structured_field.h"

#include <algorithm>

#include "shared/base/utf8.h"

namespace penstock::http {
namespace {

constexpr size_t kNone = std::string_view::npos;
constexpr size_t kMostDigits = 15;       // of an integer
constexpr size_t kMostWholeDigits = 12;  // of a decimal, before its point
constexpr size_t kMostFractionDigits = 3;

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
bool is_lower(char c) noexcept { return c >= 'a' && c <= 'z'; }
bool is_letter(char c) noexcept { return is_lower(c) || (c >= 'A' && c <= 'Z'); }
bool is_printable(char c) noexcept { return c >= 0x20 && c <= 0x7E; }
bool is_one_of(char c, std::string_view set) noexcept { return set.find(c) != kNone; }
int lower_hex(char c) noexcept {
  return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t skip_digits(std::string_view text, size_t at) noexcept {
  while (at < text.size() && is_digit(text[at])) {
    ++at;
  }
  return at;
}

size_t number_end(std::string_view text, size_t at, bool may_be_decimal) noexcept {
  const size_t begin = at + (at < text.size() && text[at] == '-' ? 1 : 0);
  const size_t whole = skip_digits(text, begin);
  const size_t digits = whole - begin;
  if (digits == 0 || digits > kMostDigits) {
    return kNone;
  }
  if (whole == text.size() || text[whole] != '.') {
    return whole;
  }
  const size_t end = skip_digits(text, whole + 1);
  const size_t fraction = end - whole - 1;
  return may_be_decimal && digits <= kMostWholeDigits && fraction > 0 &&
                 fraction <= kMostFractionDigits
             ? end
             : kNone;
}

size_t string_end(std::string_view text, size_t at) noexcept {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\' && (++at == text.size() || !is_one_of(text[at], "\"\\"))) {
      return kNone;
    }
    if (!is_printable(text[at])) {
      return kNone;
    }
  }
  return at < text.size() ? at + 1 : kNone;
}

size_t token_end(std::string_view text, size_t at) noexcept {
  while (at < text.size() &&
         (is_letter(text[at]) || is_digit(text[at]) || is_one_of(text[at], "!#$%&'*+-.^_`|~:/"))) {
    ++at;
  }
  return at;
}

// Base 64; its padding may be left out.
size_t bytes_end(std::string_view text, size_t at) noexcept {
  const size_t end = text.find(':', ++at);
  if (end == kNone) {
    return kNone;
  }
  std::string_view base64 = text.substr(at, end - at);
  const size_t size = base64.size();
  while (base64.ends_with('=') && size - base64.size() < 2) {
    base64.remove_suffix(1);
  }
  for (const char c : base64) {
    if (!is_letter(c) && !is_digit(c) && c != '+' && c != '/') {
      return kNone;
    }
  }
  const bool padded_right = size == base64.size() || size % 4 == 0;
  return base64.size() % 4 != 1 && padded_right ? end + 1 : kNone;
}

// Percent-encoded UTF-8: judged as it is decoded, some characters at a time.
size_t display_string_end(std::string_view text, size_t at) noexcept {
  if (text.substr(at, 2) != "%\"") {
    return kNone;
  }
  char pending[4];
  size_t size = 0;
  for (at += 2; at < text.size() && text[at] != '"'; ++at) {
    char c = text[at];
    if (!is_printable(c)) {
      return kNone;
    }
    if (c == '%') {
      const int high = at + 2 < text.size() ? lower_hex(text[at + 1]) : -1;
      const int low = high >= 0 ? lower_hex(text[at + 2]) : -1;
      if (low < 0) {
        return kNone;
      }
      c = static_cast<char>(high << 4 | low);
      at += 2;
    }
    pending[size++] = c;
    const Utf8Char front = utf8_front({pending, size});
    if (front.kind == Utf8Char::kInvalid) {
      return kNone;
    }
    size = front.kind == Utf8Char::kWhole ? 0 : size;
  }
  return at < text.size() && size == 0 ? at + 1 : kNone;
}

}  // namespace

size_t bare_item_end(std::string_view text, size_t at) noexcept {
  if (at >= text.size()) {
    return kNone;
  }
  const char first = text[at];
  switch (first) {
    case '"':
      return string_end(text, at);
    case ':':
      return bytes_end(text, at);
    case '?':
      return at + 1 < text.size() && is_one_of(text[at + 1], "01") ? at + 2 : kNone;
    case '@':
      return number_end(text, at + 1, false);
    case '%':
      return display_string_end(text, at);
    default:
      return first == '-' || is_digit(first)    ? number_end(text, at, true)
             : is_letter(first) || first == '*' ? token_end(text, at)
                                                : kNone;
  }
}

size_t parameters_end(std::string_view text, size_t at) noexcept {
  while (at < text.size() && text[at] == ';') {
    at = std::min(text.find_first_not_of(' ', at + 1), text.size());
    if (at == text.size() || !(is_lower(text[at]) || text[at] == '*')) {
      return kNone;
    }
    while (at < text.size() &&
           (is_lower(text[at]) || is_digit(text[at]) || is_one_of(text[at], "_-.*"))) {
      ++at;
    }
    if (at < text.size() && text[at] == '=') {
      at = bare_item_end(text, at + 1);
      if (at == kNone) {
        return kNone;
      }
    }
  }
  return at;
}

}  // namespace penstock::http
