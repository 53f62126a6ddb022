// The scheduler beside a naive list that does the same the slow and obvious way.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/scheduler.h"

namespace penstock::queue {
namespace {

using Ticket = Scheduler::Ticket;

constexpr size_t kModels = 3;  // model 0 is "any"
constexpr uint32_t kMaxLength = 40;
constexpr uint32_t kAttempts = 3;
constexpr int64_t kDeadlineNs = 50 * kNsPerSec;
constexpr int64_t kBackoffNs = kNsPerSec;

struct NaiveJob {
  std::unique_ptr<Ticket> ticket = std::make_unique<Ticket>();
  size_t model = 0;
  int64_t priority = 0;
  uint64_t arrival = 0;
  int64_t deadline_ns = 0;
  uint32_t attempts = 0;
  bool running = false;
  int64_t ready_ns = 0;  // not running: may be taken from then on

  bool before(const NaiveJob& other) const {
    return priority != other.priority ? priority > other.priority : arrival < other.arrival;
  }
};

class SchedulerModelTest : public testing::TestWithParam<uint64_t> {
 protected:
  SchedulerModelTest() {
    queue_ = &scheduler_.set_queue({.name = "q",
                                    .max_length = kMaxLength,
                                    .attempts = kAttempts,
                                    .deadline_ns = kDeadlineNs,
                                    .backoff_ns = kBackoffNs});
    lanes_ = {&queue_->any_model(), &scheduler_.lane(*queue_, "a"), &scheduler_.lane(*queue_, "b")};
  }

  uint64_t random(uint64_t below) { return random_() % below; }
  uint32_t waiting() const {
    return static_cast<uint32_t>(
        std::count_if(jobs_.begin(), jobs_.end(), [](const auto& job) { return !job.running; }));
  }
  bool ready(const NaiveJob& job) const { return !job.running && job.ready_ns <= now_; }
  static bool compete(size_t model, size_t other) {
    return model == 0 || other == 0 || model == other;
  }

  void add() {
    NaiveJob job;
    job.model = random(kModels);
    job.priority = static_cast<int64_t>(random(3)) - 1;
    job.arrival = ++arrivals_;
    job.deadline_ns = now_ + kDeadlineNs;
    const bool fits = waiting() < kMaxLength;
    ASSERT_EQ(scheduler_.add(*job.ticket, *lanes_[job.model], job.priority, now_), fits);
    if (fits) {
      jobs_.push_back(std::move(job));
    }
  }

  void take() {
    const size_t model = 1 + random(kModels - 1);
    NaiveJob* expected = nullptr;
    for (NaiveJob& job : jobs_) {
      const bool fits = job.model == 0 || job.model == model;
      if (fits && ready(job) && (expected == nullptr || job.before(*expected))) {
        expected = &job;
      }
    }
    ASSERT_EQ(scheduler_.take(*lanes_[model], now_),
              expected == nullptr ? nullptr : expected->ticket.get());
    if (expected != nullptr) {
      expected->running = true;
    }
  }

  // Some job, of those that run or of all.
  std::vector<NaiveJob>::iterator pick(bool running) {
    std::vector<std::vector<NaiveJob>::iterator> choice;
    for (auto it = jobs_.begin(); it != jobs_.end(); ++it) {
      if (it->running || !running) {
        choice.push_back(it);
      }
    }
    return choice.empty() ? jobs_.end() : choice[random(choice.size())];
  }

  void finish(bool running) {
    if (const auto it = pick(running); it != jobs_.end()) {
      scheduler_.finish(*it->ticket, Scheduler::Outcome::kCompleted, now_);
      jobs_.erase(it);
    }
  }

  void retry() {
    const auto it = pick(true);
    if (it == jobs_.end()) {
      return;
    }
    const bool lost = random(2) == 0;
    const bool again = ++it->attempts < kAttempts;
    ASSERT_EQ(
        scheduler_.retry(*it->ticket,
                         lost ? Scheduler::Cause::kWorkerLost : Scheduler::Cause::kJobFailed, now_),
        again);
    if (!again) {
      jobs_.erase(it);
      return;
    }
    const uint32_t waits = it->attempts - (lost ? 1 : 0);
    it->running = false;
    it->ready_ns = waits == 0 ? now_ : now_ + (kBackoffNs << (waits - 1));
  }

  void advance() {
    now_ += static_cast<int64_t>(random(5 * kNsPerSec));
    std::vector<Scheduler::Expired> expired;
    scheduler_.advance_to(now_, expired);
    size_t over = 0;
    for (auto it = jobs_.begin(); it != jobs_.end();) {
      if (it->deadline_ns > now_) {
        ++it;
        continue;
      }
      const auto told = std::find_if(expired.begin(), expired.end(), [&](const auto& each) {
        return each.ticket == it->ticket.get();
      });
      ASSERT_NE(told, expired.end());
      ASSERT_EQ(told->was_running, it->running);
      ++over;
      it = jobs_.erase(it);
    }
    ASSERT_EQ(expired.size(), over);
  }

  void check() {
    ASSERT_EQ(queue_->waiting, waiting());
    ASSERT_EQ(queue_->running, jobs_.size() - waiting());
    for (const NaiveJob& job : jobs_) {
      uint32_t position = 0;
      if (!job.running) {
        position = 1;
        for (const NaiveJob& other : jobs_) {
          position += ready(other) && other.before(job) && compete(job.model, other.model) ? 1 : 0;
        }
      }
      ASSERT_EQ(scheduler_.position(*job.ticket), position);
    }
  }

  std::mt19937_64 random_{GetParam()};
  Scheduler scheduler_;
  Scheduler::Queue* queue_;
  std::vector<Scheduler::Lane*> lanes_;
  std::vector<NaiveJob> jobs_;
  uint64_t arrivals_ = 0;
  int64_t now_ = kNsPerSec;
};

TEST_P(SchedulerModelTest, AgreesWithANaiveListOnEveryStep) {
  for (int step = 0; step < 5'000 && !HasFatalFailure(); ++step) {
    const uint64_t die = random(20);
    if (die < 8) {
      add();
    } else if (die < 13) {
      take();
    } else if (die < 15) {
      finish(true);
    } else if (die < 16) {
      finish(false);
    } else if (die < 18) {
      retry();
    } else {
      advance();
    }
    check();
  }
  for (NaiveJob& job : jobs_) {
    scheduler_.finish(*job.ticket, Scheduler::Outcome::kCancelled, now_);
  }
  EXPECT_EQ(queue_->waiting + queue_->running, 0U);
  EXPECT_EQ(scheduler_.next_event(), INT64_MAX);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerModelTest, testing::Range<uint64_t>(1, 9));

}  // namespace
}  // namespace penstock::queue
