// Job ids: "job_" and a ULID, 26 characters of Crockford's base 32.
//
// The first ten characters are the time in milliseconds, and three count the ids of one
// millisecond, so that ids sort by age, strictly, and their first 63 bits are a number of their
// own. The other thirteen are 65 random bits from the kernel, so nobody can guess another's id.
// Where many are kept, the 128 bits of the ULID take half the room of its text.
// Source: https://github.com/ulid/spec (its monotonic ids, with the counter in front)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock {

struct JobId {
  static constexpr size_t kBytes = 30;
  char text[kBytes] = {};
  std::string_view view() const noexcept { return {text, kBytes}; }
  bool operator==(const JobId& other) const noexcept { return view() == other.view(); }
  auto operator<=>(const JobId& other) const noexcept { return view() <=> other.view(); }
};

// The bits of an id. They sort as the ids do.
struct Ulid {
  uint64_t high = 0;
  uint64_t low = 0;                                         // random, all of it
  uint64_t sequence() const noexcept { return high >> 1; }  // see sequence_of()
  bool operator==(const Ulid&) const = default;
};
Ulid ulid_of(const JobId& id) noexcept;
JobId id_of(const Ulid& ulid) noexcept;

// The id that the text is, if it is one.
std::optional<JobId> parse_job_id(std::string_view text) noexcept;
// Its first 63 bits: no two ids of one maker share them, and later ones are greater.
uint64_t sequence_of(const JobId& id) noexcept;
// When it was made: milliseconds since 1970 UTC.
int64_t created_ms(const JobId& id) noexcept;

// Makes ids. Random bytes are fetched a block at a time: a system call each few hundred ids.
class JobIdMaker {
 public:
  // Aborts if the kernel gives no randomness, which it always does once booted. A clock that was
  // stepped back is not followed: ids go on from the latest.
  JobId make(int64_t unix_ms);
  // Ids from now on are greater than this one.
  void start_after(const JobId& id) noexcept;

 private:
  static constexpr size_t kRandomBytes = 9;  // of an id
  static constexpr uint32_t kPerMs = 1U << 15;
  const uint8_t* random();

  std::array<uint8_t, 256 * kRandomBytes> block_;
  size_t used_ = sizeof(block_);
  int64_t last_ms_ = 0;
  uint32_t count_ = 0;  // ids of that millisecond
};

}  // namespace penstock
