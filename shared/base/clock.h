// The two clocks. Only rims (main loops, request handlers) read them; algorithms are given `now`.
#pragma once

#include <time.h>

#include <cstdint>

namespace penstock {

constexpr int64_t kNsPerUs = 1'000;
constexpr int64_t kNsPerMs = 1'000'000;
constexpr int64_t kNsPerSec = 1'000'000'000;

// Nanoseconds since boot; the same in every process of the host, never stepped.
inline int64_t monotonic_ns() noexcept {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * kNsPerSec + ts.tv_nsec;
}

// Nanoseconds since 1970 UTC; may be stepped by the operator or NTP.
inline int64_t realtime_ns() noexcept {
  timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  return ts.tv_sec * kNsPerSec + ts.tv_nsec;
}

}  // namespace penstock
