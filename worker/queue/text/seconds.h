// Whole seconds, as clients are told to wait.
#pragma once

#include <algorithm>
#include <cstdint>

#include "shared/base/clock.h"

namespace penstock::queue {

constexpr int64_t kDrainRetrySeconds = 5;
constexpr int64_t kPausedRetrySeconds = 60;
constexpr int64_t kMaxRetrySeconds = 3600;

// Rounded up, 1 at least.
inline int64_t whole_seconds(int64_t ns) {
  return std::clamp<int64_t>((ns + kNsPerSec - 1) / kNsPerSec, 1, kMaxRetrySeconds);
}

// When to ask again after a job that has so much to go: a few times until it is done.
inline int64_t poll_after_s(int64_t left_s) { return std::clamp<int64_t>(left_s / 4, 1, 30); }

}  // namespace penstock::queue
