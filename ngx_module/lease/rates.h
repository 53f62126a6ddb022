// Rates: how much of each key this process has lately used, and what it last heard of it.
//
// Fixed memory: two keys that meet forget the earlier's, which is then learned anew.
#pragma once

#include <cmath>
#include <cstdint>

#include "shared/base/clock.h"
#include "shared/limit/siphash.h"

namespace penstock {

class Rates {
 public:
  struct Key {
    uint64_t name = 0;
    uint64_t born = 0;     // of the bucket in Redis that was last heard of
    int64_t used_ns = 0;   // steady
    int64_t heard_ns = 0;  // when Redis last said what is left of it, or was asked for just that
    uint64_t owed = 0;     // admitted without Redis, and not told yet: Redis's ticks, or units
    uint64_t refused = 0;  // units, without Redis
    uint64_t enough = ~uint64_t{0};  // held of it, when it was reckoned last
    float rate = 0;                  // units a second, then
    bool watched = false;            // what is held of it is given back when it is idle
  };

  Key& of(const limit::Hash128& key) noexcept {
    Key& found = keys_[key.lo * 0x9E3779B97F4A7C15U >> (64 - kBits)];
    if (found.name != key.hi) {
      found = {key.hi};
    }
    return found;
  }
  void note(const limit::Hash128& key, uint64_t units, int64_t now_ns) noexcept {
    Key& found = of(key);
    found.rate = static_cast<float>(rate_at(found, now_ns) + static_cast<double>(units) / kMeanS);
    found.used_ns = now_ns;
  }
  static double rate_at(const Key& key, int64_t now_ns) noexcept {
    const double ago = static_cast<double>(now_ns - key.used_ns) / (kMeanS * 1e9);
    constexpr double kNearly = 0.01;  // here a line is as good
    return key.rate * (ago < kNearly ? 1 - ago : std::exp(-ago));
  }

 private:
  static constexpr unsigned kBits = 13;
  static constexpr double kMeanS = 0.5;
  Key keys_[size_t{1} << kBits];
};

}  // namespace penstock
