// Whole seconds, as clients are told to wait.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "shared/base/clock.h"

namespace penstock::queue {

constexpr int64_t kDrainRetrySeconds = 5;
constexpr int64_t kPausedRetrySeconds = 60;  // nobody knows for how long
constexpr int64_t kCannotLoadRetrySeconds = 10;
constexpr int64_t kMaxRetrySeconds = 3600;

// Rounded up, 1 at least.
inline int64_t whole_seconds(int64_t ns) {
  return std::clamp<int64_t>((ns + kNsPerSec - 1) / kNsPerSec, 1, kMaxRetrySeconds);
}

// Rounded up.
inline int64_t seconds_up(int64_t ns) { return (ns + kNsPerSec - 1) / kNsPerSec; }

// The end of what somebody is told who may come back.
inline std::string try_again(int64_t seconds) {
  return " Try again in " + std::to_string(seconds) + " s.";
}

// When to ask again after a job that has so much to go: a few times until it is done.
inline int64_t poll_after_s(int64_t left_s) { return std::clamp<int64_t>(left_s / 4, 1, 30); }

}  // namespace penstock::queue
