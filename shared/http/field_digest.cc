#include "shared/http/field_digest.h"

#include <cstring>

namespace penstock::http {

uint64_t FieldDigest::mixed(uint64_t hash, uint64_t word) noexcept {
  hash = (hash ^ word) * 0x9E3779B97F4A7C15;
  return hash ^ hash >> 32;
}

void FieldDigest::add(std::string_view text) noexcept {
  for (size_t i = 0; i < text.size();) {
    if (size_ % 8 == 0 && text.size() - i >= 8) {
      std::memcpy(&word_, text.data() + i, 8);
      hash_ = mixed(hash_, word_);
      word_ = 0;
      size_ += 8;
      i += 8;
      continue;
    }
    word_ |= uint64_t{static_cast<uint8_t>(text[i++])} << 8 * (size_ % 8);
    if (++size_ % 8 == 0) {
      hash_ = mixed(hash_, word_);
      word_ = 0;
    }
  }
}

}  // namespace penstock::http
