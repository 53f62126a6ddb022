// ClockDoubt: whether the time of day can be believed at the start.
//
// A machine may start with its clock years off, until it has been synchronised: by such a clock
// everything has expired, or nothing ever will. The latest job on disk tells what time it was. If
// the clock is more than a day from that, what goes by it waits: until the kernel says that it is
// synchronised (adjtimex(2)), or for kMostNs, as it may have been switched off for long.
#pragma once

#include <sys/timex.h>

#include <cstdint>
#include <cstdlib>

#include "shared/base/clock.h"

namespace penstock::queue {

class ClockDoubt {
 public:
  static constexpr int64_t kMostMs = 86'400'000;
  static constexpr int64_t kMostNs = 600 * kNsPerSec;

  // `newest_ms`: what the latest job tells; 0: there is none.
  ClockDoubt(int64_t newest_ms, int64_t wall_ms, int64_t now_ns,
             bool (*synchronised)() = is_synchronised)
      : synchronised_(synchronised),
        off_ms_(newest_ms == 0 ? 0 : wall_ms - newest_ms),
        until_ns_(std::abs(off_ms_) > kMostMs ? now_ns + kMostNs : now_ns) {}

  // WorkAhead of the latest job (> 0), or behind it.
  int64_t off_ms() const { return off_ms_; }
  bool holds(int64_t now_ns) {
    if (now_ns < until_ns_ && synchronised_()) {
      until_ns_ = now_ns;
    }
    return now_ns < until_ns_;
  }

  static bool is_synchronised() {
    timex state{};
    const int status = ::adjtimex(&state);
    return status != -1 && status != TIME_ERROR && (state.status & STA_UNSYNC) == 0;
  }

 private:
  bool (*synchronised_)();
  int64_t off_ms_;
  int64_t until_ns_;
};

}  // namespace penstock::queue
