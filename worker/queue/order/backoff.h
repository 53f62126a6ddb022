// Back-off with jitter: jobs that failed together do not come back together.
#pragma once

#include <cstdint>

namespace penstock::queue {

// Half of the delay and a random part of the other half ("equal jitter"; M. Brooker, "Exponential
// Backoff And Jitter", 2015). The numbers are SplitMix64's (G. Steele, D. Lea, C. Flood, "Fast
// Splittable Pseudorandom Number Generators", 2014), `random` being its state.
inline int64_t with_jitter(int64_t delay_ns, uint64_t& random) noexcept {
  uint64_t r = random += 0x9e3779b97f4a7c15;
  r = (r ^ (r >> 30)) * 0xbf58476d1ce4e5b9;
  r = (r ^ (r >> 27)) * 0x94d049bb133111eb;
  r ^= r >> 31;
  const int64_t half_ns = delay_ns / 2;
  return delay_ns - half_ns + static_cast<int64_t>(r % static_cast<uint64_t>(half_ns + 1));
}

}  // namespace penstock::queue
