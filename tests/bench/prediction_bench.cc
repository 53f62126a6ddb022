// BENCH.md T2 and T3: how far predicted waits are off, and whether positions are ever wrong.
//
// T2. Jobs of one class come at random (Poisson) at a steady load of what the slots can do; what
// each takes is log-normal, of 20 ms on average: a part that its cost tells, as the length of a
// prompt and max_tokens do, of `by_cost` (the sigma of its logarithm), times one that nothing
// tells, of `by_chance`. Each job that finds all slots busy is told its wait when it comes; the
// error is judged once it starts. Three ways to look at it:
//
//   all     |predicted - waited| / waited, every job that waited
//   longer  the same, of those that waited longer than a job takes
//   floored |predicted - waited| / max(waited, what a job takes), every job that waited
//
// `ideal` is the error, in the sense of `all`, of one who knows the true mean, and what each job
// will take as far as its cost tells, and deals the jobs to the slots.
//
// T2R. Each is told between which times it will start, four times of five, too: how many did, how
// many sooner and later, and how wide the range was, over the wait (`width_median`), and all ranges
// over all waits (`sharpness`). Also where what jobs take changes every half minute (`shifts`:
// between so much less and more), where a fifth are of a higher class (`classes`), and where
// several models share one device (`models`).
//
// T3. 100,000 jobs of 1,000 owners in four classes, of which some run, come back, are cancelled or
// are let before by aging: each that waits is asked for its position; then all are taken, and each
// must be taken in its turn.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <queue>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/order/scheduler.h"

namespace penstock::queue {
namespace {

constexpr double kMeanNs = 20e6;
constexpr double kUnits = 1000;  // of cost, a job's on average

struct Job : Scheduler::Ticket {
  uint64_t cost = 1;
  int64_t takes_ns = 0;
  int64_t began_ns = 0;
  double predicted_ns = -1;  // not told
  Scheduler::Foretold foretold;
  Scheduler::Lane* its = nullptr;
  double ideal_ns = 0;
  uint32_t position = 0;
};

struct Load {
  double load;
  uint32_t slots;
  double by_cost;
  double by_chance;
  double seconds;
  double shifts = 0;
  uint32_t classes = 1;
  uint32_t models = 1;
  bool ideal = true;
};

class Simulation {
 public:
  explicit Simulation(const Load& load) : load_(load) {
    Scheduler::Queue& queue = scheduler_.set_queue({.name = "q", .max_length = UINT32_MAX});
    for (uint32_t i = 0; i < load.models; ++i) {
      lanes_.push_back({&scheduler_.lane(queue, std::to_string(i)), 0});
      scheduler_.set_capacity(*lanes_.back().lane, load.slots);
    }
    for (const Turn& each : lanes_) {
      std::vector<Scheduler::Rival> rivals;
      for (const Turn& other : lanes_) {
        if (other.lane != each.lane) {
          rivals.push_back({other.lane, 1, load.slots});
        }
      }
      if (!rivals.empty()) {
        scheduler_.set_rivals(*each.lane, load.slots, rivals);
      }
    }
  }

  std::deque<Job>& run(uint64_t seed = 13) {
    std::mt19937_64 random(seed);
    const auto one_on_average = [](double sigma) {
      return std::lognormal_distribution<double>(-sigma * sigma / 2, sigma);
    };
    auto by_cost = one_on_average(load_.by_cost);
    auto by_chance = one_on_average(load_.by_chance);
    std::exponential_distribution<double> gap(load_.load * load_.slots / kMeanNs);
    constexpr int64_t kLearns = 20 * kNsPerSec;
    // NOLINTNEXTLINE(*FloatLoopCounter): a clock, not a count
    for (double at = kNsPerSec; at < load_.seconds * kNsPerSec; at += gap(random)) {
      run_to(static_cast<int64_t>(at));
      Job& job = jobs_.emplace_back();
      job.cost = static_cast<uint64_t>(std::max(1.0, std::round(kUnits * by_cost(random))));
      const double shift = 1 + (now_ / kShiftNs % 2 == 0 ? load_.shifts : -load_.shifts);
      job.takes_ns = static_cast<int64_t>(kMeanNs * static_cast<double>(job.cost) / kUnits *
                                          by_chance(random) * shift);
      job.its = lanes_[load_.models == 1 ? 0 : random() % load_.models].lane;
      const int64_t priority = load_.classes > 1 && random() % 5 == 0 ? 1 : 0;
      scheduler_.add(job, *job.its, {.owner = jobs_.size(), .priority = priority, .cost = job.cost},
                     now_);
      if (running_.size() == load_.slots) {
        job.foretold = scheduler_.foretell(job, now_);
      }
      if (running_.size() == load_.slots && now_ > kLearns) {
        job.predicted_ns = static_cast<double>(scheduler_.predicted_wait_ns(job, now_));
        job.ideal_ns = load_.ideal ? dealt_ns() : 0;
      }
      waiting_.push_back(&job);
      fill();
    }
    run_to(INT64_MAX / 4);
    return jobs_;
  }

 private:
  struct Running {
    int64_t until_ns;
    Job* job;
  };

  static double known_ns(const Job& job) {
    return kMeanNs * static_cast<double>(job.cost) / kUnits;
  }
  double dealt_ns() const {
    std::vector<double> free_at;
    for (const Running& each : running_) {
      const auto age_ns = static_cast<double>(now_ - each.job->began_ns);
      free_at.push_back(std::max(0.0, known_ns(*each.job) - age_ns));
    }
    std::make_heap(free_at.begin(), free_at.end(), std::greater<>());
    for (const Job* const job : waiting_) {
      std::pop_heap(free_at.begin(), free_at.end(), std::greater<>());
      free_at.back() += known_ns(*job);
      std::push_heap(free_at.begin(), free_at.end(), std::greater<>());
    }
    return free_at.front();
  }
  // Of the lanes that have a job, the one whose jobs had the device for the least time.
  Job* take() {
    Turn* least = nullptr;
    for (Turn& each : lanes_) {
      if (Scheduler::next(*each.lane) != nullptr &&
          (least == nullptr || each.had_ns < least->had_ns)) {
        least = &each;
      }
    }
    if (least == nullptr) {
      return nullptr;
    }
    auto* const job = static_cast<Job*>(scheduler_.take(*least->lane, now_));
    double most_ns = 0;
    for (const Turn& each : lanes_) {
      most_ns = std::max(most_ns, each.had_ns);
    }
    const auto takes_ns = static_cast<double>(job->takes_ns);
    // Who had nothing to do gains nothing by it.
    least->had_ns = std::max(least->had_ns, most_ns - load_.slots * kMeanNs) + takes_ns;
    return job;
  }
  void fill() {
    while (running_.size() < load_.slots) {
      Job* const job = take();
      if (job == nullptr) {
        return;
      }
      Scheduler::came_true(*job->its, job->foretold, now_ - job->arrived_ns());
      waiting_.erase(std::find(waiting_.begin(), waiting_.end(), job));  // the first, nearly always
      job->began_ns = now_;
      running_.push_back({now_ + job->takes_ns, job});
    }
  }
  void run_to(int64_t until_ns) {
    const auto sooner = [](const Running& a, const Running& b) { return a.until_ns < b.until_ns; };
    while (!running_.empty()) {
      const auto first = std::min_element(running_.begin(), running_.end(), sooner);
      if (first->until_ns > until_ns) {
        break;
      }
      now_ = first->until_ns;
      Job* const job = first->job;
      running_.erase(first);
      scheduler_.finish(*job, Scheduler::Outcome::kCompleted, now_);
      fill();
    }
    now_ = until_ns;
  }

  struct Turn {
    Scheduler::Lane* lane;
    double had_ns;
  };
  static constexpr int64_t kShiftNs = 30 * kNsPerSec;

  Load load_;
  Scheduler scheduler_;
  std::vector<Turn> lanes_;
  int64_t now_ = kNsPerSec;
  std::deque<Job> jobs_;
  std::deque<Job*> waiting_;
  std::vector<Running> running_;
};

struct Errors {
  size_t jobs;
  double median;
  double p90;
};

Errors errors_of(std::deque<Job>& jobs, double Job::*told, double least_ns, double floor_ns) {
  std::vector<double> errors;
  for (const Job& job : jobs) {
    const auto waited_ns = static_cast<double>(job.began_ns - job.arrived_ns());
    if (job.predicted_ns >= 0 && waited_ns > least_ns) {
      errors.push_back(std::abs(job.*told - waited_ns) / std::max(waited_ns, floor_ns));
    }
  }
  if (errors.empty()) {
    return {};
  }
  std::sort(errors.begin(), errors.end());
  return {errors.size(), errors[errors.size() / 2], errors[errors.size() * 9 / 10]};
}

void predictions() {
  for (const Load& load :
       {Load{0.9, 4, 0, 0.5, 600}, Load{0.9, 4, 0.5, 0.05, 600}, Load{0.9, 4, 0.5, 0.1, 600},
        Load{0.9, 4, 0.5, 0.2, 600}, Load{0.9, 4, 1.0, 0.2, 600}, Load{0.9, 32, 0.5, 0.2, 200},
        Load{1.5, 4, 0, 0.5, 120}, Load{1.5, 4, 0, 1.0, 120}, Load{1.5, 4, 0.5, 0.2, 120}}) {
    Simulation simulation(load);
    auto& jobs = simulation.run();
    const Errors all = errors_of(jobs, &Job::predicted_ns, 0, 0);
    const Errors longer = errors_of(jobs, &Job::predicted_ns, kMeanNs, 0);
    const Errors floored = errors_of(jobs, &Job::predicted_ns, 0, kMeanNs);
    const Errors ideal = errors_of(jobs, &Job::ideal_ns, 0, 0);
    std::printf(
        "T2 load=%.1f slots=%u by_cost=%.1f by_chance=%.2f jobs=%zu all_median=%.3f all_p90=%.3f "
        "longer_median=%.3f longer_p90=%.3f floored_median=%.3f floored_p90=%.3f "
        "ideal_median=%.3f ideal_p90=%.3f\n",
        load.load, load.slots, load.by_cost, load.by_chance, all.jobs, all.median, all.p90,
        longer.median, longer.p90, floored.median, floored.p90, ideal.median, ideal.p90);
  }
}

void ranges(uint64_t first_seed) {
  for (Load load : {Load{0.5, 2, 0, 0.5, 120},
                    Load{0.5, 8, 0, 1.0, 120},
                    Load{0.7, 4, 0.5, 0.2, 120},
                    Load{0.9, 1, 0, 0.5, 120},
                    Load{0.9, 4, 0, 0.5, 120},
                    Load{0.9, 4, 0, 1.0, 120},
                    Load{0.9, 4, 0.5, 0.05, 120},
                    Load{0.9, 4, 1.0, 0.2, 120},
                    Load{0.9, 64, 0, 0.5, 60},
                    Load{1.1, 4, 0, 0.5, 80},
                    Load{1.5, 4, 0, 0.5, 80},
                    Load{1.5, 4, 0, 1.0, 80},
                    Load{1.5, 32, 0.5, 0.2, 40},
                    Load{0.8, 4, 0, 0.5, 300, 0.4},
                    Load{0.9, 8, 0.5, 0.2, 200, 0.3},
                    Load{0.8, 4, 0, 0.5, 120, 0, 2},
                    Load{0.9, 16, 0.5, 0.2, 80, 0, 2},
                    Load{0.8, 4, 0, 0.5, 120, 0, 1, 3},
                    Load{0.9, 8, 0, 0.5, 200, 0.3, 1, 3},
                    Load{0.8, 8, 0, 0.5, 120, 0, 2, 2}}) {
    load.ideal = false;
    size_t jobs = 0;
    size_t sooner = 0;
    size_t later = 0;
    std::vector<double> widths;
    double width_ns = 0;
    double waits_ns = 0;
    // Of a backlog that only grows, one run says little: its jobs are off together.
    for (uint64_t seed = first_seed; seed < first_seed + 10; ++seed) {
      Simulation simulation(load);
      for (const Job& job : simulation.run(seed)) {
        const int64_t waited_ns = job.began_ns - job.arrived_ns();
        if (job.predicted_ns < 0) {
          continue;
        }
        ++jobs;
        sooner += waited_ns < job.foretold.soon_ns ? 1 : 0;
        later += waited_ns > job.foretold.late_ns ? 1 : 0;
        const auto width = static_cast<double>(job.foretold.late_ns - job.foretold.soon_ns);
        width_ns += width;
        waits_ns += static_cast<double>(waited_ns);
        widths.push_back(width / std::max(static_cast<double>(waited_ns), kMeanNs));
      }
    }
    std::sort(widths.begin(), widths.end());
    const auto part = [&](size_t count) {
      return static_cast<double>(count) / static_cast<double>(jobs);
    };
    std::printf(
        "T2R load=%.1f slots=%u by_cost=%.1f by_chance=%.2f shifts=%.1f classes=%u models=%u "
        "jobs=%zu inside=%.3f sooner=%.3f later=%.3f width_median=%.3f "
        "sharpness=%.3f\n",
        load.load, load.slots, load.by_cost, load.by_chance, load.shifts, load.classes, load.models,
        jobs, 1 - part(sooner + later), part(sooner), part(later), widths[widths.size() / 2],
        width_ns / waits_ns);
  }
}

void positions() {
  constexpr size_t kJobs = 100'000;
  size_t compared = 0;
  size_t wrong = 0;
  size_t promoted = 0;
  for (const uint64_t seed : {1U, 2U, 3U}) {
    std::mt19937_64 random(seed);
    Scheduler scheduler;
    Scheduler::Lane& lane = scheduler.lane(
        scheduler.set_queue(
            {.name = "q", .max_length = UINT32_MAX, .attempts = 9, .aging_ns = kNsPerSec}),
        "m");
    std::deque<Job> jobs(kJobs);
    std::vector<Job*> running;
    std::vector<Scheduler::Expired> expired;
    int64_t now = kNsPerSec;
    for (Job& job : jobs) {
      scheduler.advance_to(now += kNsPerMs, expired);
      scheduler.add(job, lane,
                    {.owner = random() % 1000,
                     .priority = static_cast<int64_t>(random() % 4),
                     .cost = 1 + random() % 1000,
                     .weight = 1 + random() % 8},
                    now);
      if (random() % 2 == 0) {
        running.push_back(static_cast<Job*>(scheduler.take(lane, now)));
      }
      if (random() % 2 == 0 && !running.empty()) {
        Job*& any = running[random() % running.size()];
        random() % 2 == 0
            ? scheduler.finish(*any, Scheduler::Outcome::kCompleted, now)
            : static_cast<void>(scheduler.retry(*any, Scheduler::Cause::kWorkerLost, now));
        any = running.back();
        running.pop_back();
      }
      if (Job& any = jobs[random() % kJobs];
          random() % 8 == 0 && any.state() == Scheduler::Ticket::State::kWaiting) {
        scheduler.finish(any, Scheduler::Outcome::kCancelled, now);
      }
    }
    for (Job& job : jobs) {
      job.position = scheduler.position(job);
      promoted += job.promoted() ? 1 : 0;
    }
    uint32_t turn = 0;
    while (auto* const job = static_cast<Job*>(scheduler.take(lane, now))) {
      ++compared;
      wrong += job->position == ++turn ? 0 : 1;
    }
  }
  std::printf("T3 compared=%zu wrong=%zu let_before=%zu\n", compared, wrong, promoted);
}

}  // namespace
}  // namespace penstock::queue

// `ranges [SEED]`: T2R alone, of ten seeds from that on.
int main(int count, char** words) {
  const bool all = count < 2 || std::string_view(words[1]) != "ranges";
  constexpr uint64_t kSeed = 13;
  if (all) {
    penstock::queue::predictions();
  }
  penstock::queue::ranges(count < 3 ? kSeed : std::strtoull(words[2], nullptr, 10));
  if (all) {
    penstock::queue::positions();
  }
}
