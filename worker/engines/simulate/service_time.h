// ServiceTimes: the random part of the simulated device, reproducible from its seed on any machine.
//
// Sources: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) for the bits; the exponential by inversion;
// the normal behind the lognormal by Box and Muller (1958).
#pragma once

#include <cstdint>

#include "worker/engines/simulate/simulate_options.h"

namespace penstock::simulate {

class ServiceTimes {
 public:
  ServiceTimes(Distribution distribution, double sigma, uint64_t seed)
      : distribution_(distribution), sigma_(sigma), state_(seed) {}

  // A time whose expectation is `mean_ns`; at most about a month.
  int64_t next_ns(int64_t mean_ns);
  // True with this probability.
  bool chance(double probability);

 private:
  double uniform();  // in [0, 1)

  Distribution distribution_;
  double sigma_;
  uint64_t state_;
};

}  // namespace penstock::simulate
