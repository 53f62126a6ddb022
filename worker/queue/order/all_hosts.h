// AllHosts: the workers of a lane on all hosts that share its queue, and how long a job waits for
// them.
//
// It is known at which rank a job stands, and not what those before it cost. So each of them counts
// as the mean: of c slots, each of which is in the midst of a job once the first rank has to wait,
// the first comes free after about what is left of a job over c, and one more each c-th part of the
// mean.
//
//     wait(rank) = (residual + (rank - 1 - free) × mean) / slots,   0 where a slot is free for it
//
// Turns with other lanes on the same devices, and newcomers that go before, are not foreseen: how
// far that is off is learned as any error is (wait_spread.h).
#pragma once

#include <algorithm>
#include <cstdint>

namespace penstock::queue {

struct AllHosts {
  bool shared = false;     // else all of this is nothing
  uint32_t hosts = 0;      // that live, edges too
  uint32_t slots = 0;      // jobs that live workers can run at once
  uint32_t running = 0;    // of those
  uint32_t workers = 0;    // that there should be
  uint32_t ready = 0;      // of those
  uint32_t attending = 0;  // hosts where some are, or may be in a moment
  uint32_t in_line = 0;    // jobs that wait for them
  double mean_ns = 0;      // that a job takes
  double spread = 0;       // its variance over the squared mean
  double seen = 0;         // jobs it was learned from

  bool known() const noexcept { return seen > 0 && slots > 0; }

  // Of a job at that rank; 1 is the next to start. O(1)
  int64_t wait_ns(uint32_t rank) const noexcept {
    const uint32_t free = slots - std::min(running, slots);
    if (!known() || rank <= free) {
      return 0;
    }
    const double residual_ns = mean_ns * (1 + spread) / 2;
    const double ahead = static_cast<double>(rank) - 1 - free;
    return static_cast<int64_t>(std::min((residual_ns + ahead * mean_ns) / slots, 1e18));
  }
  // The last rank that does not wait longer. O(1)
  uint32_t rank_within(int64_t most_ns) const noexcept {
    uint32_t low = 0;
    uint32_t high = UINT32_MAX;
    while (low < high) {
      const uint32_t middle = high - (high - low) / 2;
      (wait_ns(middle) <= most_ns ? low : high) = wait_ns(middle) <= most_ns ? middle : middle - 1;
    }
    return low;
  }
};

}  // namespace penstock::queue
