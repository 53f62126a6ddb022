// ArrivalRate: how much work has come in lately, over a window that fades exponentially.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace penstock::queue {

class ArrivalRate {
 public:
  static constexpr double kWindowNs = 60e9;
  static constexpr int64_t kBurstNs = 10'000'000'000;  // what came in less is no rate yet

  void add(double work_ns, int64_t now_ns) noexcept {
    begun_ns_ = std::min(begun_ns_, now_ns);
    sum_ns_ = sum_ns_ * left_after(now_ns - last_ns_) + work_ns;
    last_ns_ = now_ns;
  }
  // Work per time: how many slots it would keep busy.
  double slots(int64_t now_ns) const noexcept {
    const double seen_ns = kWindowNs * (1 - left_after(std::max(kBurstNs, now_ns - begun_ns_)));
    return sum_ns_ * left_after(now_ns - last_ns_) / seen_ns;
  }

 private:
  static double left_after(int64_t ns) noexcept {
    return std::exp(-static_cast<double>(std::max<int64_t>(0, ns)) / kWindowNs);
  }

  double sum_ns_ = 0;
  int64_t last_ns_ = 0;
  int64_t begun_ns_ = INT64_MAX;  // when the first came
};

}  // namespace penstock::queue
