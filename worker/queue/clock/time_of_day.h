// TimeOfDay: dates beside elapsed time, which goes on evenly while the time of day may be stepped.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <utility>

#include "shared/base/clock.h"

namespace penstock::queue {

class TimeOfDay {
 public:
  // Dates that leave elapsed time by more than this were stepped.
  static constexpr int64_t kStepMs = 100;

  static int64_t unix_ms() { return realtime_ns() / kNsPerMs; }

  explicit TimeOfDay(int64_t (*wall_ms)() = unix_ms) : wall_ms_(wall_ms) {}

  // In ms since 1970; may be stepped.
  int64_t ms() const { return wall_ms_(); }

  // What follows counts from here. `now_ns` is elapsed time, here and below.
  void start(int64_t now_ns) { began_ms_ = counted_ms_ = seen_ms_ = offset_ms(now_ns); }
  // The time of day, had it not been stepped since start(): what is kept for some time is by it.
  int64_t keeping_ms(int64_t now_ns) const { return began_ms_ + now_ns / kNsPerMs; }

  struct Step {
    int64_t ms = 0;        // 0: none
    bool at_once = false;  // else it was slewed, little by little
  };
  // How much dates have moved since the step before.
  Step take_step(int64_t now_ns) {
    const int64_t offset_ms = this->offset_ms(now_ns);
    const int64_t jump_ms = offset_ms - std::exchange(seen_ms_, offset_ms);
    if (std::abs(offset_ms - counted_ms_) < kStepMs) {
      return {};
    }
    return {offset_ms - std::exchange(counted_ms_, offset_ms), std::abs(jump_ms) >= kStepMs};
  }
  // The time of day has gone on by so much, and elapsed time has not: that is no step.
  void note_stall(int64_t ns) {
    seen_ms_ += ns / kNsPerMs;
    began_ms_ += ns / kNsPerMs;
  }

 private:
  int64_t offset_ms(int64_t now_ns) const { return wall_ms_() - now_ns / kNsPerMs; }

  int64_t (*wall_ms_)();
  int64_t began_ms_ = 0;
  int64_t counted_ms_ = 0;  // offset that was last told
  int64_t seen_ms_ = 0;     // when it was last looked at
};

}  // namespace penstock::queue
