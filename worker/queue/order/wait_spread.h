// WaitSpread: how far predicted waits turn out to be off, and so between which
// times four of five jobs will start.
//
// What is not known of a wait grows with what is before the job: of n jobs that
// c slots do, each of which takes m on average, v of it by chance (its variance
// over m²), the spread is about sqrt(n v) m / c; and m itself, learned from so
// many jobs, is off by its part. Where the jobs change meanwhile a long wait is
// off by more, in proportion to itself; how much is learned. That is the scale.
// How many scales off the tenth that was soonest and the tenth that was latest
// were is learned from what came true, whatever the cause: turns of others,
// arrivals that went before, a change in what jobs take. Each of both is an
// online quantile: a step of a tenth towards the middle for each job within,
// nine for each beyond, so that in the long run one of ten is beyond (Robbins
// and Monro; Gibbs and Candès, "Adaptive Conformal Inference Under Distribution
// Shift", NeurIPS 2021).
//
// Few and many jobs before one, and jobs that others overtake, are learned
// apart.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace penstock::queue {

class WaitSpread {
 public:
  // What was told of one wait.
  struct Told {
    double eta_ns = 0;
    double scale_ns = 0;  // 0: nothing was known
    double known_ns = 0;  // of it, what is known beforehand
    uint8_t kind = 0;
  };

  // Of a wait of `eta_ns` for the jobs of `slots` that take `mean_ns` on
  // average, `variance` over its square by chance, which was learned from
  // `seen` of them. `last`: others may go before it.
  Told tell(double eta_ns, double mean_ns, double variance, double seen, double slots,
            bool last) const noexcept {
    constexpr double kLeastVariance = 0.0025;
    const double v = std::max(variance, kLeastVariance);
    const double each_ns = mean_ns / slots;
    const double jobs = 1 + eta_ns / each_ns;
    const double by_chance = v * jobs * each_ns * each_ns;
    const double by_mean = v * eta_ns * eta_ns / std::max(2 * seen - 1, 1.0);
    const double services = eta_ns / mean_ns;  // one after the other
    size_t kind = 0;
    while (kind < kBounds.size() && services >= kBounds[kind]) {
      ++kind;
    }
    const double by_change = std::max(0.0, change_) * eta_ns * eta_ns;
    return {eta_ns, std::sqrt(by_chance + by_mean + by_change), std::sqrt(by_chance + by_mean),
            static_cast<uint8_t>(kind + (last ? kBounds.size() + 1 : 0))};
  }

  double soon_ns(const Told& told) const noexcept {
    return std::max(0.0, told.eta_ns - below_[told.kind] * told.scale_ns);
  }
  double late_ns(const Told& told) const noexcept {
    return std::max(0.0, told.eta_ns + above_[told.kind] * told.scale_ns);
  }

  // A job has started at `now_ns`, of which that was told.
  void came_true(const Told& told, double waited_ns, double now_ns) noexcept {
    if (told.scale_ns <= 0) {
      return;
    }
    // Jobs that wait at the same time wait for the same jobs, and are off
    // together: that is one error, however many they are.
    const double since_ns = now_ns - std::exchange(learned_ns_[told.kind], now_ns);
    const double news = std::clamp(since_ns / std::max(waited_ns, 1.0), 0.0, 1.0);
    const double error_ns = waited_ns - told.eta_ns;
    if (told.kind % (kBounds.size() + 1) >= kLong) {
      // A chance error is often as large as that again.
      const double more = error_ns * error_ns - 2 * told.known_ns * told.known_ns;
      const double part = std::min(more / (told.eta_ns * told.eta_ns), 1.0);
      change_ += news * kChangeRate * (part - change_);
    }
    const double off = error_ns / told.scale_ns;
    step(above_[told.kind], off, news);
    step(below_[told.kind], -off, news);
  }

 private:
  // In service times: a part of one, one, a few, many.
  static constexpr std::array<double, 4> kBounds = {0.25, 1, 4, 16};
  static constexpr size_t kKinds = 2 * (kBounds.size() + 1);
  static constexpr size_t kLong = 3;  // from this kind on, changes show
  static constexpr double kChangeRate = 0.05;
  static constexpr double kTenth = 1.2816;  // of a normal spread lies beyond so much of it

  static void step(double& bound, double off, double news) noexcept {
    constexpr double kRate = 0.05;
    constexpr double kLeast = 0.5;
    constexpr double kMost = 1e4;
    const double size = news * kRate * (kLeast + std::abs(bound));
    bound = std::clamp(bound + size * (off > bound ? 0.9 : -0.1), -kMost, kMost);
  }

  static constexpr std::array<double, kKinds> all(double value) noexcept {
    std::array<double, kKinds> filled{};
    filled.fill(value);
    return filled;
  }
  std::array<double, kKinds> below_ = all(kTenth);
  std::array<double, kKinds> above_ = all(kTenth);
  double change_ = 0;                               // squared, of a wait
  std::array<double, kKinds> learned_ns_ = all(0);  // when, last
};

}  // namespace penstock::queue
