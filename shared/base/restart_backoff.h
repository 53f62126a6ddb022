// RestartBackoff: how long to wait before a process that ended is started again.
//
// 0.1 s, doubled with each failure, 30 s at most; back to the beginning after a process was healthy
// for 10 s.
#pragma once

#include <algorithm>
#include <cstdint>

#include "shared/base/clock.h"

namespace penstock {

class RestartBackoff {
 public:
  static constexpr int64_t kFirstNs = 100 * kNsPerMs;
  static constexpr int64_t kMostNs = 30 * kNsPerSec;
  static constexpr int64_t kHealthyNs = 10 * kNsPerSec;

  // It ended after it had been ready for `ready_ns` (0: it never was).
  int64_t after(int64_t ready_ns) noexcept {
    if (ready_ns >= kHealthyNs) {
      next_ns_ = kFirstNs;
    }
    const int64_t delay_ns = next_ns_;
    next_ns_ = std::min(2 * next_ns_, kMostNs);
    return delay_ns;
  }

  // Where it is, and one that goes on from there.
  int64_t next_ns() const noexcept { return next_ns_; }
  static RestartBackoff from(int64_t next_ns) noexcept {
    RestartBackoff backoff;
    backoff.next_ns_ = std::clamp(next_ns, kFirstNs, kMostNs);
    return backoff;
  }

 private:
  int64_t next_ns_ = kFirstNs;
};

}  // namespace penstock
