// Job ids: "job_" and a ULID, 26 characters of Crockford's base 32.
//
// The first ten characters are the time in milliseconds, so ids sort by age; the other sixteen are
// 80 random bits from the kernel, so nobody can guess another's id.
// Source: https://github.com/ulid/spec
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock {

struct JobId {
  static constexpr size_t kBytes = 30;
  char text[kBytes] = {};
  std::string_view view() const noexcept { return {text, kBytes}; }
};

// Makes ids. Random bytes are fetched a block at a time: a system call each few hundred ids.
class JobIdMaker {
 public:
  // Aborts if the kernel gives no randomness, which it always does once booted.
  JobId make(int64_t unix_ms);

 private:
  static constexpr size_t kRandomBytes = 10;
  const uint8_t* random();

  std::array<uint8_t, 256 * kRandomBytes> block_;
  size_t used_ = sizeof(block_);
};

}  // namespace penstock
