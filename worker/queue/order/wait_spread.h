// WaitSpread: how far predicted waits turn out to be off, and so between which
// times four of five jobs will start.
//
// What is not known of a wait grows with what is before the job: of n jobs that
// c slots do, each of which takes m on average, v of it by chance (its variance
// over m²), the spread is about sqrt(n v) m / c; and m itself, learned from so
// many jobs, is off by its part. Where the jobs change meanwhile a long wait is
// off by more, in proportion to itself; how much is learned, of those that came
// sooner and of those that came later apart: jobs that will take less are no
// reason to fear that they take more. That is the scale. A wait tells of such
// changes the less, the larger a part of it is chance: it counts by the inverse
// of its variance, so that what short waits happened to be widens no long one.
//
// How many scales off the tenth that was soonest and the tenth that was latest
// were is learned from what came true, whatever the cause: turns of others,
// arrivals that went before, a change in what jobs take. Each of both is an
// online quantile: a step of a tenth towards the middle for each job within,
// nine for each beyond, so that in the long run one of ten is beyond, whatever
// the errors are (Robbins and Monro; Gibbs and Candès, "Adaptive Conformal
// Inference Under Distribution Shift", NeurIPS 2021; on the quantile itself:
// Angelopoulos, Candès and Tibshirani, "Conformal PID Control for Time Series
// Prediction", NeurIPS 2023). It is told late, and of many at once: of jobs that
// wait for the same jobs, each counts by its part of them. A job that never
// starts teaches nothing. All of it is bounded, and O(1) a job.
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
    double soon_scale_ns = 0;  // 0: nothing was known
    double late_scale_ns = 0;
    double known_ns = 0;  // of both, what is known beforehand
    uint64_t starts = 0;  // of jobs, until then
    uint8_t kind = 0;

    bool known() const noexcept { return soon_scale_ns > 0; }
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
    const double known = by_chance + by_mean;
    const auto with = [&](double change) {
      return std::sqrt(known + std::max(0.0, change) * eta_ns * eta_ns);
    };
    return {eta_ns,           with(sooner_), with(later_),
            std::sqrt(known), starts_,       static_cast<uint8_t>(kind + (last ? kDepths : 0))};
  }

  double soon_ns(const Told& told) const noexcept {
    return std::max(
        0.0, told.eta_ns - off_ns(below_[told.kind], told.soon_scale_ns, told.late_scale_ns));
  }
  double late_ns(const Told& told) const noexcept {
    return std::max(
        0.0, told.eta_ns + off_ns(above_[told.kind], told.late_scale_ns, told.soon_scale_ns));
  }

  // One more job of those has begun, whatever was told of it.
  void started() noexcept { ++starts_; }

  // A job has started, of which that was told. REQUIRES: started() was called of it.
  void came_true(const Told& told, double waited_ns) noexcept {
    if (!told.known()) {
      return;
    }
    // Jobs that wait at the same time wait for the same jobs, and are off
    // together: that is one error, however many they are.
    const auto since = static_cast<double>(starts_ - std::exchange(learned_[told.kind], starts_));
    const auto awaited = static_cast<double>(starts_ - told.starts);
    const double news = std::min(since / std::max(awaited, 1.0), 1.0);
    const double error_ns = waited_ns - told.eta_ns;
    if (told.kind % kDepths == kDepths - 1) {
      learn_change(told, error_ns, news);
    }
    const double off = error_ns / (error_ns < 0 ? told.soon_scale_ns : told.late_scale_ns);
    step(above_[told.kind], off, news);
    step(below_[told.kind], -off, news);
  }

 private:
  // In service times: a part of one, one, a few, many. Of the last, changes show.
  static constexpr std::array<double, 4> kBounds = {0.25, 1, 4, 16};
  static constexpr size_t kDepths = kBounds.size() + 1;
  static constexpr size_t kKinds = 2 * kDepths;
  static constexpr double kTenth = 1.2816;  // of a normal spread lies beyond so much of it

  // A bound may lie on the other side of what was predicted.
  static double off_ns(double bound, double scale_ns, double other_ns) noexcept {
    return bound * (bound > 0 ? scale_ns : other_ns);
  }

  void learn_change(const Told& told, double error_ns, double news) noexcept {
    constexpr double kRate = 0.05;
    constexpr double kClear = 0.005;  // squared, of a wait: what chance may not hide
    const double square = told.eta_ns * told.eta_ns;
    const double chance = told.known_ns * told.known_ns / square;
    const double weight = kClear * kClear / (kClear * kClear + 2 * chance * chance);
    const auto learn = [&](double& change, bool its) {
      // Errors by chance are to either side, and often as large as that again.
      const double part = (its ? 2 * error_ns * error_ns / square : 0) - 2 * chance;
      change += weight * news * kRate * (std::min(part, 1.0) - change);
    };
    learn(sooner_, error_ns < 0);
    learn(later_, error_ns > 0);
  }

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
  double sooner_ = 0;  // by a change, squared, of a wait
  double later_ = 0;
  uint64_t starts_ = 0;                     // of all jobs
  std::array<uint64_t, kKinds> learned_{};  // how many those were, last
};

}  // namespace penstock::queue
