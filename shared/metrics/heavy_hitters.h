// The worst offenders: which few keys are refused most often, in 8 KB, whatever the number of keys.
//
//   sketch = header | 2 rows of 256 buckets
//   bucket = | key id, 8 bytes | count, 4 bytes | tag, 4 bytes |
//
// A key has one bucket in each row. If one of them is its own, that one counts it. If not, it takes
// an empty one; and if there is none, it weakens the smaller of the two: a count of c falls by one
// with probability 1.08^-c, and a bucket that falls to nothing is the newcomer's. So what is seen
// once or twice makes way at once, and what is seen hundreds of times cannot be pushed out by any
// number of keys that aren't. A count never exceeds the truth.
//
// Counts are halved once a minute (fade()), so that they tell of the last few minutes: a key that
// is refused n times a minute stands between n and 2n.
//
// The memory is shared by processes that may be killed at any instruction: a bucket changes hands
// only by a 16-byte compare-and-swap from exactly what was read. To count a key that is there is an
// 8-byte add; should the bucket change hands just before it, one refusal is told of the wrong key.
//
// Source: J. Gong, T. Yang, H. Zhang, H. Li, S. Uhlig, S. Chen, L. Uden, X. Li, "HeavyKeeper: An
// Accurate Algorithm for Finding Top-k Elephant Flows", USENIX ATC 2018. There a key is counted in
// every row; here in one only, which leaves the other's bucket to another key. No heap of the
// largest is kept beside the rows, because 512 buckets are read in no time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "shared/base/result.h"
#include "shared/metrics/stamp.h"

namespace penstock::metrics {

struct Offender {
  uint64_t key = 0;
  uint64_t count = 0;
  uint32_t tag = 0;  // as first noted with the key
};

struct HeavyHeader {
  alignas(kCacheLine) Stamp stamp;
  int64_t faded_ns;  // when the current period began; 0: no call of fade() yet
};
static_assert(sizeof(HeavyHeader) == kCacheLine);

struct alignas(16) HeavyBucket {
  uint64_t key = 0;   // 0: empty
  uint64_t word = 0;  // count in the upper half, where adding cannot spill into the tag
};

// The view that one process has of the sketch, copied freely; it owns nothing. A view that was not
// made by create() or attach() notes nothing.
class HeavyHitters {
 public:
  static constexpr size_t kRows = 2;
  static constexpr size_t kWidth = 256;
  static constexpr int64_t kFadePeriodNs = 60'000'000'000;

  static constexpr size_t bytes() noexcept {
    return sizeof(HeavyHeader) + kRows * kWidth * sizeof(HeavyBucket);
  }

  HeavyHitters() = default;

  // Makes an empty sketch in `memory`, which is overwritten. An Error if it is smaller than bytes()
  // or not aligned to a cache line. REQUIRES: nobody else uses the memory; it outlives every view.
  static Result<HeavyHitters> create(std::span<std::byte> memory);

  // The sketch that is already there. An Error says why this version cannot use it.
  static Result<HeavyHitters> attach(std::span<std::byte> memory);

  // Counts one refusal. `key` is a hash under a secret, so that nobody can choose whose buckets he
  // lands in; `tag` says what the key is, e.g. which limit refused it, and must be the same for the
  // same key. `salt` makes the dice: any number that differs between calls, e.g. the time.
  void note(uint64_t key, uint32_t tag, uint64_t salt) noexcept;

  // Fills `out` with the keys of the largest counts, largest first, and returns how many there are.
  // O(buckets * out.size()); exact only when nobody writes.
  size_t top(std::span<Offender> out) const noexcept;

  // Halves all counts, or halves them so many times. A key that falls to nothing is forgotten.
  void halve(unsigned times = 1) noexcept;

  // Halves the counts once for each whole period since this was last done. Anybody may call it at
  // any time: of several callers one does it, and true is what that one gets. The first call ever
  // only starts the first period.
  // REQUIRES: now_ns is a reading of CLOCK_MONOTONIC.
  bool fade(int64_t now_ns) noexcept;

 private:
  explicit HeavyHitters(std::span<std::byte> memory) noexcept;

  HeavyBucket* place(uint64_t hash, size_t row) const noexcept {
    return buckets_ + row * kWidth + (hash >> (8 * row)) % kWidth;
  }

  static bool count_if_mine(HeavyBucket* bucket, uint64_t key) noexcept;
  static bool weaken(HeavyBucket* bucket, const HeavyBucket& seen, const HeavyBucket& newcomer,
                     uint64_t dice) noexcept;

  HeavyHeader* header_ = nullptr;
  HeavyBucket* buckets_ = nullptr;
};

}  // namespace penstock::metrics
