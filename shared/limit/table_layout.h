// What lies in a counter table's memory (table.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "shared/limit/gcra.h"
#include "shared/limit/siphash.h"
#include "shared/limit/window.h"

namespace penstock::limit {

// What a slot holds: the low 3 bits of its key word.
enum class Kind : uint8_t {
  empty = 0,    // never used
  gcra = 1,     // state: TAT in ticks (gcra.h)
  fixed = 2,    // state: a window of the calendar and its count (window.h)
  paired = 3,   // state: a window and the counts in it and before it (window.h)
  terms = 4,    // state: what a limit said in one generation (terms.h); its key is the limit's
  lease = 5,    // state: units held of a bucket that hosts share (lease.h)
  vacated = 6,  // was claimed and given up
  pending = 7,  // state: the number of the claim
};

// Whether a slot of this kind and state may be given to another key at `now`. A kind that this
// version doesn't know is never idle.
inline bool idle_at(Kind kind, uint64_t state, const Instant& now) noexcept {
  switch (kind) {
    case Kind::gcra:
      return state <= gcra_ticks(now.steady_ns);
    case Kind::fixed:
      return fixed_window_used(state, now) == 0;
    case Kind::lease:
      return static_cast<int64_t>(state >> 25) <= now.steady_ns / 1'000'000;
    case Kind::paired:
      return paired_window_used(state, now) == 0;
    default:
      return false;
  }
}

// Kind and size of a limit's slots: what its key words have besides hash and generation. The size
// is what its state can count to, rounded down to a power of two; 0 of what is never given up.
class Mark {
 public:
  constexpr Mark() noexcept = default;
  // NOLINTNEXTLINE(google-explicit-constructor): of no size
  constexpr Mark(Kind kind, uint64_t size = 0) noexcept
      : bits_((size == 0 ? 0 : uint64_t{63} - static_cast<uint64_t>(__builtin_clzll(size))) << 3 |
              static_cast<uint64_t>(kind)) {}
  constexpr uint64_t bits() const noexcept { return bits_; }
  constexpr Kind kind() const noexcept { return static_cast<Kind>(bits_ & 7); }
  // Whether it is a calendar's or a sliding window. Leases have no size.
  constexpr bool lasts() const noexcept {
    return kind() == Kind::fixed || (kind() == Kind::paired && bits_ >> 3 != 0);
  }

 private:
  uint64_t bits_ = 0;
};

constexpr unsigned kUnused = 16;  // a slot that has used no more than 1/16 may be given up

struct alignas(16) Slot {
  uint64_t key = 0;
  uint64_t state = 0;
};

constexpr size_t kSlotsPerLine = 4;
constexpr size_t kLinesPerGroup = 4;
constexpr size_t kSlotsPerGroup = kSlotsPerLine * kLinesPerGroup;

struct alignas(64) Line {
  Slot slots[kSlotsPerLine];
};

struct Group {
  Line lines[kLinesPerGroup];
};

// Generations of terms: see (6).
struct Generations {
  static constexpr unsigned kRemembered = 8;  // so many changes can be carried over

  uint64_t present = 0;
  Instant began[kRemembered];  // by number % kRemembered
  Instant held_since;
  int64_t held_until_ns = 0;  // steady
};

// The first page. Its first line is constant once `magic` is there, but that a reload may begin a
// generation; each counter has a line of its own, so that counting doesn't slow the reading of the
// others.
struct alignas(4096) TableHeader {
  uint64_t magic;
  uint64_t version;
  uint64_t bytes;
  uint64_t groups;
  Secret secret;
  int64_t clock_offset_ns;          // from CLOCK_MONOTONIC to the table's steady clock
  uint64_t generation;              // Generations::present
  alignas(64) uint64_t claims;      // number of the latest claim
  alignas(64) uint64_t floor;       // the latest state given up while idle, see (4)
  alignas(64) int64_t given_up_ns;  // when a window's state was last given up, see (4)
  alignas(64) uint64_t full;        // claims that found no free slot
  alignas(64) uint64_t evicted;     // keys given up for others: idle, or
  uint64_t given_away;              // nearly unused
  alignas(64) Generations generations;
};
static_assert(sizeof(TableHeader) % sizeof(Group) == 0);

}  // namespace penstock::limit
