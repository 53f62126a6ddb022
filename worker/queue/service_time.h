// ServiceTime: how long a job takes, learned from those that were completed.
//
// The plain mean of the first kWindow jobs, then an exponentially weighted one over about as many,
// so that it settles fast and still follows the load.
#pragma once

#include <cstdint>

namespace penstock::queue {

class ServiceTime {
 public:
  static constexpr uint32_t kWindow = 64;

  void observe(int64_t ns) noexcept {
    if (seen_ < kWindow) {
      ++seen_;
    }
    mean_ns_ += (static_cast<double>(ns) - mean_ns_) / seen_;
  }
  // 0 until something was observed.
  double mean_ns() const noexcept { return mean_ns_; }

 private:
  double mean_ns_ = 0;
  uint32_t seen_ = 0;
};

}  // namespace penstock::queue
