// Base 64 (RFC 4648, section 4), read.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

// Writes the bytes to `out`, which has room for text.size() / 4 * 3 of them, and returns their end;
// nullptr: it is not base 64, padded to a multiple of four characters. Bits that the last character
// has to spare are passed over.
inline char* decode_base64(std::string_view text, char* out) noexcept {
  static constexpr auto kValues = [] {
    std::array<int16_t, 256> values{};
    values.fill(-1);
    constexpr std::string_view kAlphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < kAlphabet.size(); ++i) {
      values[static_cast<uint8_t>(kAlphabet[i])] = static_cast<int16_t>(i);
    }
    return values;
  }();
  if (text.size() % 4 != 0) {
    return nullptr;
  }
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) {
    text.remove_suffix(1);
  }
  uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    const int value = kValues[static_cast<uint8_t>(c)];
    if (value < 0) {
      return nullptr;
    }
    bits = bits << 6 | static_cast<uint32_t>(value);
    held += 6;
    if (held >= 8) {
      held -= 8;
      *out++ = static_cast<char>(bits >> held & 0xff);
    }
  }
  return out;
}

// The same bytes on the heap; nothing for what is not base 64.
inline std::optional<std::string> decode_base64(std::string_view text) {
  std::string bytes(text.size() / 4 * 3, '\0');
  const char* const end = decode_base64(text, bytes.data());
  if (end == nullptr) {
    return std::nullopt;
  }
  bytes.resize(static_cast<size_t>(end - bytes.data()));
  return bytes;
}

}  // namespace penstock
