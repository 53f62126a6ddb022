// ThroughputWindow, ThroughputComparison: what jobs did at one number of slots, and whether another
// number does more.
//
// With n jobs running all the time, a device does X = n * W / S work a second, where W is the work
// of jobs that ended and S the time they were in service: Little's law (Little 1961). So a handful
// of jobs tells the throughput, and jobs that all take the same tell it exactly, where counting
// ends by the clock would be off by all that was half done when the clock was read.
//
// Only jobs that began and ended in the window are counted, which favours short ones. What is
// compared is therefore always a pair of windows, one after the other, that last as many rounds
// (jobs ended for each slot): the same share is missing on both sides and cancels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace penstock::queue {

class ThroughputWindow {
 public:
  void open(int64_t now_ns) noexcept { *this = {}, opened_ns_ = now_ns, seen_ns_ = now_ns; }
  void close() noexcept { opened_ns_ = -1; }
  bool is_open() const noexcept { return opened_ns_ >= 0; }
  int64_t opened_ns() const noexcept { return opened_ns_; }
  int64_t lasted_ns() const noexcept { return seen_ns_ - opened_ns_; }

  // `running` jobs ran from the last call until now, of `slots`.
  void pass(int64_t now_ns, uint32_t running, uint32_t slots) noexcept {
    const auto ns = static_cast<double>(now_ns - seen_ns_);
    running_ns_ += ns * running;
    idle_ns_ += ns * (slots - std::min(slots, running));
    seen_ns_ = now_ns;
  }
  // A job that began in the window ended. One that failed did no work.
  void add(double work, double service_ns) noexcept {
    ++jobs_;
    work_ += work;
    service_ns_ += service_ns;
    work_work_ += work * work;
    work_service_ += work * service_ns;
    service_service_ += service_ns * service_ns;
  }

  double jobs() const noexcept { return jobs_; }
  double idle_slot_ns() const noexcept { return idle_ns_; }
  double mean_running() const noexcept { return running_ns_ / std::max<double>(1, lasted_ns()); }
  // Logarithm of the work for each second of a slot.
  double log_work() const noexcept {
    return std::log(std::max(work_, 1e-9)) - std::log(std::max(service_ns_, 1.0));
  }
  // Variance of that logarithm: of what a job's work does not tell of its time (the ratio
  // estimator, Cochran 1977). Few jobs that agree by chance are not trusted: as if one more job had
  // been off by half.
  double variance() const noexcept {
    if (work_ <= 0 || service_ns_ <= 0) {
      return 1;
    }
    const double r = service_ns_ / work_;
    const double off = service_service_ - 2 * r * work_service_ + r * r * work_work_;
    return std::max(0.0, off) / (service_ns_ * service_ns_) + 0.25 / (jobs_ * jobs_);
  }

 private:
  int64_t opened_ns_ = -1;
  int64_t seen_ns_ = 0;
  double running_ns_ = 0;
  double idle_ns_ = 0;
  double jobs_ = 0;
  double work_ = 0;
  double service_ns_ = 0;
  double work_work_ = 0;
  double work_service_ = 0;
  double service_service_ = 0;
};

// Pairs of windows, weighted by their jobs.
class ThroughputComparison {
 public:
  void add(const ThroughputWindow& here, const ThroughputWindow& there) noexcept {
    const double slots = std::log(there.mean_running()) - std::log(here.mean_running());
    const double work = slots + there.log_work() - here.log_work();
    const double n = here.jobs() + there.jobs();
    ++pairs_;
    jobs_ += n;
    slots_ += n * slots;
    work_ += n * work;
    n_n_ += n * n;
    n_n_work_ += n * n * work;
    n_n_work_work_ += n * n * work * work;
    n_n_variance_ += n * n * (here.variance() + there.variance());
  }
  uint32_t pairs() const noexcept { return pairs_; }
  double jobs() const noexcept { return jobs_; }
  // Logarithms of how many times as many slots were busy there, and how much as much work was done.
  double slots() const noexcept { return slots_ / jobs_; }
  double work() const noexcept { return work_ / jobs_; }
  // Standard error of work(): by how jobs differ, or how pairs do (which also tells of a device
  // that is slower for a while), whichever is greater.
  double error() const noexcept {
    const double mean = work();
    const double between =
        pairs_ < 2
            ? 0
            : (n_n_work_work_ - 2 * mean * n_n_work_ + mean * mean * n_n_) * pairs_ / (pairs_ - 1);
    return std::sqrt(std::max(n_n_variance_, between)) / jobs_;
  }

 private:
  uint32_t pairs_ = 0;
  double jobs_ = 0;
  double slots_ = 0;
  double work_ = 0;
  double n_n_ = 0;
  double n_n_work_ = 0;
  double n_n_work_work_ = 0;
  double n_n_variance_ = 0;
};

}  // namespace penstock::queue
