// What characters mean in JSON text, outside of strings and in them.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "shared/http/json_number.h"

namespace penstock::http {

inline bool is_space(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Whether it belongs to a byte order mark, which some engines pass over (RFC 8259, section 8.1).
inline bool is_of_mark(char c, uint64_t at) noexcept {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  return at < kMark.size() && c == kMark[at];
}

// What a character means outside of strings: that it stops a run over what is passed at the top
// level, that it is white space, that it opens or closes brackets, that it is a quote.
constexpr uint8_t kStopsTop = 1;
constexpr int kSpaceBit = 1;
constexpr int kOpensBit = 2;
constexpr int kClosesBit = 3;
constexpr uint8_t kQuote = 1 << 4;
inline constexpr std::array<uint8_t, 256> kMeans = [] {
  std::array<uint8_t, 256> means{};
  means[','] = kStopsTop;
  means['"'] = kStopsTop | kQuote;
  means['{'] = means['['] = kStopsTop | 1 << kOpensBit;
  means['}'] = means[']'] = kStopsTop | 1 << kClosesBit;
  means[' '] = means['\t'] = means['\n'] = means['\r'] = 1 << kSpaceBit;
  return means;
}();

inline bool ends_scalar(char c) noexcept { return kMeans[static_cast<uint8_t>(c)] != 0; }

}  // namespace penstock::http
