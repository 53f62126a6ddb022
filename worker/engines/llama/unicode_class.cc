#include "worker/engines/llama/unicode_class.h"

#include <algorithm>
#include <iterator>

namespace penstock::llama {
namespace {

struct Range {
  uint32_t first;
  uint32_t last;
  CharClass kind;
};

constexpr Range kRanges[] = {
#include "worker/engines/llama/unicode_class_table.inc"
};

CharClass look_up(uint32_t code) {
  const auto* range = std::upper_bound(std::begin(kRanges), std::end(kRanges), code,
                                       [](uint32_t c, const Range& r) { return c <= r.last; });
  return range != std::end(kRanges) && code >= range->first ? range->kind : CharClass::kOther;
}

// Sequence length by the lead byte, 0 if it cannot lead.
uint32_t length_by_lead(uint8_t lead) {
  if (lead >= 0xC2 && lead <= 0xDF) {
    return 2;
  }
  if (lead >= 0xE0 && lead <= 0xEF) {
    return 3;
  }
  return lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
}

}  // namespace

CharClass class_of(uint32_t code_point) {
  if (code_point < 0x80) {
    const uint32_t lower = code_point | 0x20U;
    if (lower >= 'a' && lower <= 'z') {
      return CharClass::kLetter;
    }
    if (code_point >= '0' && code_point <= '9') {
      return CharClass::kNumber;
    }
    const bool space = code_point == ' ' || (code_point >= '\t' && code_point <= '\r');
    return space ? CharClass::kSpace : CharClass::kOther;
  }
  return look_up(code_point);
}

Char char_at(std::string_view text, size_t at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  if (lead < 0x80) {
    return {lead, 1, class_of(lead)};
  }
  const Char invalid{kNoChar, 1, CharClass::kOther};
  const uint32_t length = length_by_lead(lead);
  if (length == 0 || text.size() - at < length) {
    return invalid;
  }
  uint32_t code = lead & (0x7FU >> length);
  for (uint32_t i = 1; i < length; ++i) {
    const auto byte = static_cast<uint8_t>(text[at + i]);
    if ((byte & 0xC0U) != 0x80) {
      return invalid;
    }
    code = code << 6 | (byte & 0x3FU);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (code < kLeast[length] || code > 0x10FFFF || surrogate) {
    return invalid;
  }
  return {code, length, class_of(code)};
}

}  // namespace penstock::llama
