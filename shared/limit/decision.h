// What every algorithm is given, and what it answers.
#pragma once

#include <cstdint>

namespace penstock::limit {

// A moment, by two clocks. The algorithms that measure time go by `steady_ns`; those that follow
// the calendar by `wall_ns`.
struct Instant {
  int64_t steady_ns = 0;  // never stepped, the same in all processes, and going on where it stopped
                          // after a restart of the host: see BasicTable::instant(). Less than 2^59.
  int64_t wall_ns = 0;    // since 1970 UTC; may be stepped
};

constexpr int64_t kNever = -1;
constexpr int64_t kAsk = -2;

struct Decision {
  bool admit = false;
  uint64_t next_state = 0;     // store this; on a refusal equal to the state given, but see gcra.h
  uint64_t remaining = 0;      // whole units left after this decision
  int64_t retry_after_ns = 0;  // smallest wait after which the same cost is admitted, if nobody
                               // else uses the key; 0 if admitted; kNever if no wait will help;
                               // kAsk if the lessor must be asked (lease.h)
  int64_t reset_ns = 0;        // until nothing of it is used any more
  int64_t delay_ns = 0;        // admitted, but to be held back this long (GcraPolicy::delay)

  bool never() const noexcept { return retry_after_ns == kNever; }
  bool asks() const noexcept { return retry_after_ns == kAsk; }
};

}  // namespace penstock::limit
