#include "shared/base/utf8.h"

#include <algorithm>

namespace penstock {
namespace {

struct Lead {
  size_t bytes;               // of the whole character; 0: no character begins so
  unsigned char low2, high2;  // range of the second byte
};

Lead lead_of(unsigned char c) noexcept {
  if (c < 0x80) return {1, 0, 0};
  if (c < 0xC2) return {0, 0, 0};
  if (c < 0xE0) return {2, 0x80, 0xBF};
  if (c == 0xE0) return {3, 0xA0, 0xBF};
  if (c == 0xED) return {3, 0x80, 0x9F};  // beyond: surrogates
  if (c < 0xF0) return {3, 0x80, 0xBF};
  if (c == 0xF0) return {4, 0x90, 0xBF};
  if (c < 0xF4) return {4, 0x80, 0xBF};
  if (c == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Char utf8_front(std::string_view text) noexcept {
  const Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  if (lead.bytes == 0) {
    return {Utf8Char::kInvalid, 1};
  }
  const size_t there = std::min(lead.bytes, text.size());
  for (size_t i = 1; i < there; ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < (i == 1 ? lead.low2 : 0x80) || c > (i == 1 ? lead.high2 : 0xBF)) {
      return {Utf8Char::kInvalid, 1};
    }
  }
  return {there == lead.bytes ? Utf8Char::kWhole : Utf8Char::kCutOff, there};
}

size_t utf8_complete_prefix(std::string_view text) noexcept {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const size_t at = text.size() - back;
    if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80) {  // not a continuation byte
      return utf8_front(text.substr(at)).kind == Utf8Char::kCutOff ? at : text.size();
    }
  }
  return text.size();
}

size_t utf8_first_invalid(std::string_view text) noexcept {
  for (size_t at = 0; at < text.size();) {
    const Utf8Char front = utf8_front(text.substr(at));
    if (front.kind != Utf8Char::kWhole) {
      return at;
    }
    at += front.bytes;
  }
  return std::string_view::npos;
}

size_t one_line(std::string_view text, char* line) noexcept {
  constexpr auto is_plain = [](char c) noexcept { return c >= 0x20 && c < 0x7F; };
  char* end = line;
  while (!text.empty()) {
    const auto plain =
        static_cast<size_t>(std::find_if_not(text.begin(), text.end(), is_plain) - text.begin());
    end += text.copy(end, plain);
    text.remove_prefix(plain);
    if (text.empty()) {
      break;
    }
    const Utf8Char front = utf8_front(text);
    const auto byte = static_cast<unsigned char>(text.front());
    const bool c1 = byte == 0xC2 && front.bytes == 2 && static_cast<unsigned char>(text[1]) < 0xA0;
    if (front.kind != Utf8Char::kWhole || byte < 0x20 || byte == 0x7F || c1) {
      *end++ = '?';
    } else {
      end += text.copy(end, front.bytes);
    }
    text.remove_prefix(front.bytes);
  }
  return static_cast<size_t>(end - line);
}

std::string one_line(std::string_view text) {
  std::string line(text.size(), '\0');
  line.resize(one_line(text, line.data()));
  return line;
}

}  // namespace penstock
