// A device that serves jobs on a pushed clock, for tests and benches of AdaptiveSlots.
//
// Running jobs share it evenly; each has a size (1 on average) and goes on at a speed that depends
// on how many run: processor sharing, simulated exactly by virtual time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <queue>
#include <random>
#include <vector>

#include "worker/queue/bound/adaptive_slots.h"

namespace penstock::queue {

enum class Sizes { kConstant, kLogNormal, kExponential };

class SimulatedDevice {
 public:
  // How long a job of size 1 takes, in ns, when so many run.
  std::function<double(uint32_t running)> takes_ns;
  std::function<bool(uint32_t running)> fails = [](uint32_t) { return false; };
  Sizes sizes = Sizes::kLogNormal;
  bool size_is_work = false;      // else every job is work of 1
  uint64_t waiting = UINT64_MAX;  // jobs that wait to be started

  // What the limit was, weighted by time, since reset().
  double work = 0;
  double limit_ns = 0;
  double ns = 0;
  uint32_t most_running = 0;
  uint64_t ended = 0;
  std::mt19937_64 random{1};

  explicit SimulatedDevice(AdaptiveSlots& slots) : slots_(slots) {}

  int64_t now() const { return now_; }
  double mean_limit() const { return limit_ns / ns; }
  double work_per_ns() const { return work / ns; }
  void reset() { work = limit_ns = ns = 0; }

  void run_jobs(uint64_t jobs) {
    for (const uint64_t until = ended + jobs; ended < until;) {
      step(INT64_MAX);
    }
  }
  void run_for(int64_t ns_more) {
    for (const int64_t until = now_ + ns_more; now_ < until;) {
      step(until);
    }
  }

 private:
  struct Job {
    double ends;  // in virtual time
    double size;
    int64_t began_ns;
    bool operator<(const Job& other) const { return ends > other.ends; }
  };

  double size() {
    switch (sizes) {
      case Sizes::kConstant:
        return 1;
      case Sizes::kLogNormal:
        return std::lognormal_distribution<double>(-0.125, 0.5)(random);
      case Sizes::kExponential:
        return std::exponential_distribution<double>(1)(random);
    }
    return 1;
  }
  void fill() {
    while (running_.size() < slots_.limit() && waiting > 0) {
      waiting -= waiting == UINT64_MAX ? 0 : 1;
      const double z = size();
      running_.push({virtual_ + z, z, now_});
      most_running = std::max(most_running, static_cast<uint32_t>(running_.size()));
      slots_.started(now_, static_cast<uint32_t>(running_.size()));
    }
  }
  void step(int64_t until) {
    fill();
    const auto running = static_cast<uint32_t>(running_.size());
    const double takes = takes_ns(std::max(running, 1U));
    const int64_t done =
        running == 0
            ? INT64_MAX
            : now_ + static_cast<int64_t>(std::max(0.0, running_.top().ends - virtual_) * takes) +
                  1;
    const int64_t next = std::min({done, until, std::max(now_, slots_.next_event())});
    virtual_ += static_cast<double>(next - now_) / takes;
    limit_ns += static_cast<double>(next - now_) * slots_.limit();
    ns += static_cast<double>(next - now_);
    now_ = next;
    slots_.advance_to(now_);
    if (next == done) {
      const Job job = running_.top();
      running_.pop();
      ++ended;
      const bool failed = fails(running);
      const double w = size_is_work ? job.size : 1;
      work += failed ? 0 : w;
      slots_.ended(now_, running - 1,
                   {.began_ns = job.began_ns,
                    .work = w,
                    .end = failed ? AdaptiveSlots::End::kFailed : AdaptiveSlots::End::kCompleted});
    }
  }

  AdaptiveSlots& slots_;
  std::priority_queue<Job> running_;
  double virtual_ = 0;
  int64_t now_ = 0;
};

}  // namespace penstock::queue
