// LogBound: how many lines of a log a peer may cause. Each takes one of `burst` places, and
// `per_second` places come free each second. Lines that find no place are counted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "shared/base/clock.h"

namespace penstock {

class LogBound {
 public:
  // REQUIRES: burst >= 1.
  LogBound(double burst, double per_second)
      : burst_(burst), per_second_(per_second), places_(burst) {}

  // Whether a line may be written now.
  bool admits(int64_t now_ns) {
    const double passed_s = static_cast<double>(now_ns - filled_ns_) / kNsPerSec;
    places_ = std::min(burst_, places_ + std::max(0.0, passed_s) * per_second_);
    filled_ns_ = now_ns;
    if (places_ < 1) {
      ++left_out_;
      return false;
    }
    places_ -= 1;
    return true;
  }

  // How many lines found no place since the last call.
  uint64_t take_left_out() { return std::exchange(left_out_, 0); }

 private:
  double burst_;
  double per_second_;
  double places_;
  int64_t filled_ns_ = 0;
  uint64_t left_out_ = 0;
};

}  // namespace penstock
