#include "worker/engines/simulate/service_time.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace penstock::simulate {

double ServiceTimes::uniform() {
  state_ += 0x9E3779B97F4A7C15U;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1.0p-53;
}

bool ServiceTimes::chance(double probability) { return probability > 0 && uniform() < probability; }

int64_t ServiceTimes::next_ns(int64_t mean_ns) {
  constexpr double kMaxNs = 1e9 * 86400 * 31;
  const auto mean = static_cast<double>(mean_ns);
  double time = mean;
  if (distribution_ == Distribution::kExponential) {
    time = -mean * std::log1p(-uniform());
  } else if (distribution_ == Distribution::kLognormal) {
    const double radius = std::sqrt(-2 * std::log1p(-uniform()));
    const double normal = radius * std::cos(2 * std::numbers::pi * uniform());
    time = mean * std::exp(sigma_ * normal - sigma_ * sigma_ / 2);
  }
  return static_cast<int64_t>(std::min(time, kMaxNs));
}

}  // namespace penstock::simulate
