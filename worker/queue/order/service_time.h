// ServiceTime: how long a job of a given cost takes, learned from those that were completed.
//
// It is a straight line: so much a job, and so much a unit of cost. It is fitted to the last few
// hundred jobs by exponentially weighted least squares. The line goes through the mean, so that a
// mix of jobs is right in sum however well its slope is known; as long as all jobs cost about the
// same, half of the mean is put down to the job and half to its cost. Neither part is ever
// negative. Because it is a line, the work of a million jobs follows from their number and the sum
// of their costs, and all of it moves at once when something is learned.
//
// One odd job does not spoil it (what is far out is cut off), and a lasting change is followed
// fast: when the last errors all point one way, older jobs are given up.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace penstock::queue {

class ServiceTime {
 public:
  static constexpr double kWindow = 512;  // jobs
  static constexpr double kRecent = 32;   // jobs whose errors tell of a change
  static constexpr double kRelearn = 16;  // jobs kept after one

  void observe(int64_t ns, uint64_t cost) noexcept {
    const auto c = static_cast<double>(cost);
    double t = static_cast<double>(std::max<int64_t>(ns, 0));
    if (seen_ >= kRelearn) {
      t = std::min(t, 2 * std::max(mean_ns_, work_ns(1, c)) + 8 * std::sqrt(var_t_));
      watch(t - work_ns(1, c));
    }
    seen_ = std::min(seen_ + 1, kWindow);
    const double a = 1 / seen_;
    const double dt = t - mean_ns_;
    const double dc = c - mean_cost_;
    mean_ns_ += a * dt;
    mean_cost_ += a * dc;
    var_t_ = (1 - a) * (var_t_ + a * dt * dt);
    var_c_ = (1 - a) * (var_c_ + a * dc * dc);
    cov_ = (1 - a) * (cov_ + a * dt * dc);
    fit();
  }

  bool known() const noexcept { return seen_ > 0; }
  double seen() const noexcept { return seen_; }        // jobs it is learned from, at most kWindow
  double mean_ns() const noexcept { return mean_ns_; }  // 0 until something was observed

  // What `jobs` waiting jobs need, of that cost in sum.
  double work_ns(double jobs, double cost) const noexcept {
    return jobs * per_job_ns_ + cost * per_unit_ns_;
  }
  // What running jobs still need, which have run for `age_ns` in sum. For times that are all the
  // same it is what is missing; for exponential ones the age says nothing; the line between and
  // beyond is right on average over a stationary stream (renewal theory: E[X²] / 2 E[X]).
  double left_ns(double jobs, double cost, double age_ns) const noexcept {
    const double v = spread();
    return std::max(0.0, work_ns(jobs, cost) - age_ns * (1 - v) / (1 + v));
  }
  // What one running job of that cost still needs, which has run for `age_ns`: the mean of what is
  // left of log-normal times that have lasted so long, for service times are much like that. It is
  // never nothing: a job that takes long is one of the long ones.
  double remaining_ns(double cost, double age_ns) const noexcept {
    const double mean = work_ns(1, cost);
    const double sigma = std::sqrt(std::log1p(std::max(spread(), 0.01)));
    const double z = age_ns > 0 ? std::log(age_ns / std::max(mean, 1.0)) / sigma + sigma / 2 : -40;
    if (z > 6) {
      return age_ns * sigma / z;  // what both tails come to
    }
    return std::max(0.0, mean * std::erfc((z - sigma) / M_SQRT2) / std::erfc(z / M_SQRT2) - age_ns);
  }
  // The age at which it will be done with this chance, of one that has lasted `age_ns`; by the
  // same.
  double done_by_ns(double cost, double age_ns, double chance) const noexcept {
    const double mean = work_ns(1, cost);
    const double sigma = std::sqrt(std::log1p(std::max(spread(), 0.01)));
    const double mu = std::log(std::max(mean, 1.0)) - sigma * sigma / 2;
    const auto lasts = [&](double z) { return std::erfc(z / M_SQRT2) / 2; };
    double low = age_ns > 0 ? std::max((std::log(age_ns) - mu) / sigma, -8.0) : -8;
    const double left = lasts(low) * (1 - chance);
    double high = low + 16;
    for (int i = 0; i < 40; ++i) {
      const double middle = (low + high) / 2;
      (lasts(middle) > left ? low : high) = middle;
    }
    return std::max(age_ns, std::exp(mu + sigma * high));
  }
  // How far the estimate for a single job can be trusted, from 0 to 1. 1: every job takes what is
  // estimated. 0: what a job takes has nothing to do with its cost.
  double certainty() const noexcept {
    const double square = mean_ns_ * mean_ns_;
    const double known = 0.01 + (square > 0 ? std::max(0.0, per_unit_ns_ * cov_ / square) : 0);
    return known / (known + spread());
  }
  // What a running job needs still, seen at a moment that has nothing to do with it.
  double residual_ns() const noexcept { return mean_ns_ * (1 + spread()) / 2; }

  // Variance over the squared mean, of what the cost does not explain.
  double spread() const noexcept {
    return mean_ns_ > 0 ? std::max(0.0, var_t_ - per_unit_ns_ * cov_) / (mean_ns_ * mean_ns_) : 0;
  }

 private:
  void watch(double error) noexcept {
    recent_error_ += (error - recent_error_) / kRecent;
    const double deviation = std::sqrt(var_t_ / (2 * kRecent - 1));
    if (std::abs(recent_error_) > 5 * deviation + 0.02 * mean_ns_) {
      seen_ = kRelearn;
      recent_error_ = 0;
    }
  }
  void fit() noexcept {
    if (mean_cost_ <= 0) {
      per_job_ns_ = mean_ns_;
      per_unit_ns_ = 0;
      return;
    }
    const double proportional = mean_ns_ / mean_cost_;
    const double prior = 0.01 * mean_cost_ * mean_cost_;  // as much as a spread of a tenth says
    const double slope = (cov_ + prior * proportional / 2) / (var_c_ + prior);
    per_unit_ns_ = std::clamp(slope, 0.0, proportional);
    per_job_ns_ = mean_ns_ - per_unit_ns_ * mean_cost_;
  }

  double seen_ = 0;
  double mean_ns_ = 0;
  double mean_cost_ = 0;
  double var_t_ = 0;
  double var_c_ = 0;
  double cov_ = 0;
  double recent_error_ = 0;
  double per_job_ns_ = 0;
  double per_unit_ns_ = 0;
};

}  // namespace penstock::queue
