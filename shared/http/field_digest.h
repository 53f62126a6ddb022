// FieldDigest: whether two bodies, in whatever pieces, are the same.
#pragma once

#include <cstdint>
#include <string_view>

namespace penstock::http {

// A hash of what is added, in whatever pieces; not one that withstands an adversary.
class FieldDigest {
 public:
  void add(std::string_view text) noexcept;
  uint64_t end() const noexcept { return mixed(mixed(hash_, word_), size_); }

 private:
  static uint64_t mixed(uint64_t hash, uint64_t word) noexcept;
  uint64_t hash_ = 0;
  uint64_t word_ = 0;  // the bytes of the last that is not whole yet
  uint64_t size_ = 0;
};

}  // namespace penstock::http
