// AwakeClock: elapsed time in which this process ran.
//
// A process that is stopped (SIGSTOP, a frozen cgroup, a host that stands still, a write that
// blocks) does not hear what others say meanwhile, and must not blame them for it. So a stall is
// left out: all time limits go on from where they were when it began. (Redis Sentinel's TILT mode
// has the same reason; https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/.)
#pragma once

#include <cstdint>

#include "shared/base/clock.h"

namespace penstock::queue {

class AwakeClock {
 public:
  // What comes no later than this is no stall.
  static constexpr int64_t kStallNs = kNsPerSec;

  // `clock` is monotonic.
  explicit AwakeClock(int64_t (*clock)() = monotonic_ns) : clock_(clock) {}

  // It goes on as that of an earlier process on this host, which had left so much out.
  void go_on(int64_t missed_ns) { missed_ns_ = missed_ns; }
  int64_t missed_ns() const { return missed_ns_; }

  int64_t now_ns() const { return clock_() - missed_ns_; }
  // The clock's own time, for others to read.
  int64_t real_ns(int64_t awake_ns) const { return awake_ns + missed_ns_; }

  // Something was due by then, and comes now. If that is a stall, it is left out from now on.
  // Returns how long it was; 0: it was none.
  int64_t came_due(int64_t due_ns) {
    const int64_t late_ns = now_ns() - due_ns;
    if (late_ns <= kStallNs) {
      return 0;
    }
    missed_ns_ += late_ns;
    return late_ns;
  }

 private:
  int64_t (*clock_)();
  int64_t missed_ns_ = 0;
};

}  // namespace penstock::queue
