// The scheduler beside a naive list that does the same the slow and obvious way.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/order/scheduler.h"

namespace penstock::queue {
namespace {

using Ticket = Scheduler::Ticket;

constexpr size_t kModels = 3;  // model 0 is "any"
constexpr uint32_t kMaxLength = 40;
constexpr uint32_t kAttempts = 3;
constexpr int64_t kDeadlineNs = 50 * kNsPerSec;
constexpr int64_t kBackoffNs = kNsPerSec;
constexpr int64_t kAgingNs = 7 * kNsPerSec;
constexpr uint32_t kMaxPerOwner = 12;
constexpr uint64_t kOwners = 6;
constexpr int64_t kPromoted = Scheduler::kHighest + 1;

// Start-time fair queueing of one class in one lane, as in the paper, with nothing forgotten until
// the class is empty.
struct NaiveClass {
  struct Owner {
    uint64_t end = 0;
    uint64_t served = 0;
    uint64_t rest = 0;
    uint64_t weight = 1;
    int waiting = 0;
  };
  uint64_t virtual_time = 0;
  int jobs = 0;
  std::map<uint64_t, Owner> owners;
};

struct NaiveJob {
  std::unique_ptr<Ticket> ticket = std::make_unique<Ticket>();
  size_t model = 0;
  int64_t priority = 0;  // of its class
  int64_t standing = 0;  // priority, or kPromoted
  uint64_t owner = 0;
  uint64_t tag = 0;
  uint64_t start = 0;  // the tag it came with
  uint64_t end = 0;
  uint64_t arrival = 0;
  int64_t arrived_ns = 0;
  int64_t deadline_ns = 0;
  uint32_t attempts = 0;
  Scheduler::Entry entry;
  bool running = false;
  bool scheduled = false;
  int64_t ready_ns = 0;  // not running: may be taken from then on

  bool before(const NaiveJob& other) const {
    return standing != other.standing ? standing > other.standing
           : tag != other.tag         ? tag < other.tag
                                      : arrival < other.arrival;
  }
};

class SchedulerModelTest : public testing::TestWithParam<uint64_t> {
 protected:
  SchedulerModelTest() {
    queue_ = &scheduler_.set_queue({.name = "q",
                                    .max_length = kMaxLength,
                                    .max_per_owner = kMaxPerOwner,
                                    .attempts = kAttempts,
                                    .deadline_ns = kDeadlineNs,
                                    .backoff_ns = kBackoffNs,
                                    .aging_ns = kAgingNs});
    lanes_ = {&queue_->any_model(), &scheduler_.lane(*queue_, "a"), &scheduler_.lane(*queue_, "b")};
  }

  uint64_t random(uint64_t below) { return random_() % below; }
  int64_t random_ns(int64_t below_s) {
    return static_cast<int64_t>(random(static_cast<uint64_t>(below_s * kNsPerSec)));
  }
  uint32_t waiting() const {
    return static_cast<uint32_t>(
        std::count_if(jobs_.begin(), jobs_.end(), [](const auto& job) { return !job.running; }));
  }
  bool ready(const NaiveJob& job) const {
    return !job.running && !job.scheduled && job.ready_ns <= now_;
  }
  static bool compete(size_t model, size_t other) {
    return model == 0 || other == 0 || model == other;
  }

  void add() {
    NaiveJob job;
    job.model = random(kModels);
    job.priority = job.standing = static_cast<int64_t>(random(3)) - 1;
    job.owner = random(kOwners);
    job.arrived_ns = now_;
    job.entry = {job.owner, job.priority, 1 + random(50), 1 + random(2) * 6};
    if (random(4) == 0) {
      job.scheduled = true;
      job.entry.not_before_ns = job.arrived_ns = job.ready_ns = now_ + 1 + random_ns(20);
    }
    job.deadline_ns = job.arrived_ns + kDeadlineNs;
    if (random(4) == 0) {
      job.entry.deadline_ns = job.deadline_ns = now_ + 1 + random_ns(60);
    }
    job.entry.attempts = job.attempts = static_cast<uint32_t>(random(8) == 0 ? 1 : 0);
    job.entry.force = random(32) == 0;
    const auto own = std::count_if(jobs_.begin(), jobs_.end(), [&](const NaiveJob& each) {
      return each.owner == job.owner && !each.running;
    });
    const auto expected = job.entry.force           ? Scheduler::Admission::kAdded
                          : waiting() >= kMaxLength ? Scheduler::Admission::kQueueFull
                          : own >= kMaxPerOwner     ? Scheduler::Admission::kOwnerFull
                                                    : Scheduler::Admission::kAdded;
    ASSERT_EQ(scheduler_.add(*job.ticket, *lanes_[job.model], job.entry, now_), expected);
    if (expected == Scheduler::Admission::kAdded) {
      if (!job.scheduled) {
        line_up(job);
      }
      jobs_.push_back(std::move(job));
    }
  }

  NaiveClass& class_of(const NaiveJob& job) { return classes_[{job.model, job.priority}]; }
  NaiveClass::Owner& owner_of(const NaiveJob& job) { return class_of(job).owners[job.owner]; }

  void line_up(NaiveJob& job) {
    const Scheduler::Entry& entry = job.entry;
    job.scheduled = false;
    job.arrival = ++arrivals_;
    arm(job.model);
    NaiveClass& mine = class_of(job);
    if (mine.jobs++ == 0) {
      for (size_t model = 0; model < kModels; ++model) {
        const auto& other = classes_[{model, job.priority}];
        if (compete(model, job.model)) {
          mine.virtual_time = std::max(mine.virtual_time, other.virtual_time);
        }
      }
    }
    NaiveClass::Owner& owner = mine.owners[job.owner];
    const bool goes_on = owner.waiting > 0 || owner.end > mine.virtual_time;
    if (owner.weight != entry.weight || !goes_on) {
      owner.rest = 0;
      owner.weight = entry.weight;
    }
    job.tag = job.start = owner.waiting > 0 ? owner.end : std::max(owner.end, mine.virtual_time);
    const uint64_t scaled = (entry.cost << 16) + owner.rest;
    owner.rest = scaled % entry.weight;
    owner.end = job.end = job.tag + scaled / entry.weight;
    ++owner.waiting;
  }
  void waits_no_more(const NaiveJob& job) {
    NaiveClass::Owner& owner = owner_of(job);
    if (--owner.waiting == 0) {
      owner.end = owner.served;
    }
  }
  void over(const NaiveJob& job) {
    if (job.scheduled) {
      return;
    }
    if (!job.running) {
      waits_no_more(job);
    }
    if (--class_of(job).jobs == 0) {
      class_of(job) = {};
    }
  }
  void started(const NaiveJob& job, size_t worker_model) {
    owner_of(job).served = std::max(owner_of(job).served, job.end);
    waits_no_more(job);
    for (const size_t model : {job.model, worker_model, size_t{0}}) {
      NaiveClass& each = classes_[{model, job.priority}];
      if (each.jobs > 0) {
        each.virtual_time = std::max(each.virtual_time, job.start);
      }
    }
    for (const size_t model : {worker_model, size_t{0}}) {
      highest_taken_[model] = std::max(highest_taken_[model], job.priority);
    }
    ++taken_;
  }

  void arm(size_t model) {
    if (age_at_[model] == INT64_MAX) {
      age_at_[model] = now_ + kAgingNs;
    }
  }
  void age(size_t model) {
    const auto in_lane = [&](const NaiveJob& job) { return ready(job) && job.model == model; };
    if (std::none_of(jobs_.begin(), jobs_.end(), in_lane)) {
      age_at_[model] = INT64_MAX;
      return;  // and what was taken is looked at next time
    }
    age_at_[model] = now_ + kAgingNs;
    bool promoted = false;
    int64_t top = std::exchange(highest_taken_[model], INT64_MIN);
    for (const NaiveJob& job : jobs_) {
      promoted = promoted || (in_lane(job) && job.standing == kPromoted);
      if (ready(job) && compete(model, job.model) && job.standing != kPromoted) {
        top = std::max(top, job.standing);
      }
    }
    if (promoted || taken_ - promoted_at_[model] < Scheduler::kTakesPerPromotion) {
      return;
    }
    std::map<int64_t, NaiveJob*> heads;
    for (NaiveJob& job : jobs_) {
      if (in_lane(job) && job.standing < top) {
        NaiveJob*& head = heads[job.standing];
        head = head == nullptr || job.before(*head) ? &job : head;
      }
    }
    NaiveJob* oldest = nullptr;
    for (auto it = heads.rbegin(); it != heads.rend(); ++it) {
      oldest =
          oldest == nullptr || it->second->arrived_ns < oldest->arrived_ns ? it->second : oldest;
    }
    if (oldest != nullptr && oldest->arrived_ns + kAgingNs <= now_) {
      oldest->standing = kPromoted;
      oldest->tag = 0;
      promoted_at_[model] = taken_;
      ++promotions_;
    } else if (oldest != nullptr) {
      age_at_[model] = oldest->arrived_ns + kAgingNs;
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
      started(*expected, model);
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
      over(*it);
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
      over(*it);
      jobs_.erase(it);
      return;
    }
    const uint32_t waits = it->attempts - (lost ? 1 : 0);
    come_back(*it, waits == 0 ? now_ : now_ + with_jitter(kBackoffNs << (waits - 1)));
  }

  void requeue() {
    if (const auto it = pick(true); it != jobs_.end()) {
      scheduler_.requeue(*it->ticket, now_);
      come_back(*it, now_);
    }
  }

  void come_back(NaiveJob& job, int64_t ready_ns) {
    job.running = false;
    ++owner_of(job).waiting;
    job.ready_ns = ready_ns;
    if (ready(job)) {
      arm(job.model);
    }
  }

  // SplitMix64 decides between half and whole.
  int64_t with_jitter(int64_t ns) {
    jitter_ += 0x9e3779b97f4a7c15;
    uint64_t r = (jitter_ ^ (jitter_ >> 30)) * 0xbf58476d1ce4e5b9;
    r = (r ^ (r >> 27)) * 0x94d049bb133111eb;
    r ^= r >> 31;
    return ns - ns / 2 + static_cast<int64_t>(r % static_cast<uint64_t>(ns / 2 + 1));
  }

  void advance() {
    const int64_t then = now_;
    now_ += static_cast<int64_t>(random(5 * kNsPerSec));
    std::vector<Scheduler::Expired> expired;
    scheduler_.advance_to(now_, expired);
    std::multimap<int64_t, NaiveJob*> events;
    for (NaiveJob& job : jobs_) {
      const bool waits = job.scheduled || (!job.running && job.ready_ns > then);
      events.emplace(waits ? std::min(job.ready_ns, job.deadline_ns) : job.deadline_ns, &job);
    }
    size_t ended = 0;
    for (auto it = events.begin(); it != events.end() && it->first <= now_; ++it) {
      NaiveJob& job = *it->second;
      if (job.deadline_ns <= now_) {
        const auto told = std::find_if(expired.begin(), expired.end(), [&](const auto& each) {
          return each.ticket == job.ticket.get();
        });
        ASSERT_NE(told, expired.end());
        ASSERT_EQ(told->was_running, job.running);
        ++ended;
        over(job);
        job.ticket.reset();
      } else if (job.scheduled) {
        line_up(job);
      } else {
        arm(job.model);
      }
    }
    ASSERT_EQ(expired.size(), ended);
    std::erase_if(jobs_, [](const NaiveJob& job) { return job.ticket == nullptr; });
    for (size_t model = 0; model < kModels; ++model) {
      if (age_at_[model] <= now_) {
        age(model);
      }
    }
  }

  void check() {
    ASSERT_EQ(queue_->waiting, waiting());
    ASSERT_EQ(queue_->running, jobs_.size() - waiting());
    ASSERT_EQ(queue_->scheduled, std::count_if(jobs_.begin(), jobs_.end(),
                                               [](const auto& job) { return job.scheduled; }));
    std::map<int64_t, uint32_t, std::greater<>> by_class;
    for (const NaiveJob& job : jobs_) {
      if (!job.running && !job.scheduled) {
        ++by_class[job.priority];
      }
    }
    const auto lengths = Scheduler::waiting_by_class(*queue_);
    ASSERT_EQ(lengths.size(), by_class.size());
    for (const auto& [priority, waiting] : lengths) {
      ASSERT_EQ(by_class[priority], waiting);
    }
    for (const NaiveJob& job : jobs_) {
      uint32_t position = 0;
      if (!job.running && !job.scheduled) {
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
  std::map<std::pair<size_t, int64_t>, NaiveClass> classes_;  // by model and priority
  int64_t age_at_[kModels] = {INT64_MAX, INT64_MAX, INT64_MAX};
  uint64_t promoted_at_[kModels] = {};
  int64_t highest_taken_[kModels] = {INT64_MIN, INT64_MIN, INT64_MIN};
  uint64_t jitter_ = 1;  // the scheduler's own seed
  uint64_t taken_ = 0;
  int promotions_ = 0;
  uint64_t arrivals_ = 0;
  int64_t now_ = kNsPerSec;
};

TEST_P(SchedulerModelTest, AgreesWithANaiveListOnEveryStep) {
  for (int step = 0; step < 10'000 && !HasFatalFailure(); ++step) {
    const uint64_t die = random(20);
    if (die < 8) {
      add();
    } else if (die < 13) {
      take();
    } else if (die < 15) {
      finish(true);
    } else if (die < 16) {
      finish(false);
    } else if (die < 17) {
      retry();
    } else if (die < 18) {
      requeue();
    } else {
      advance();
    }
    check();
  }
  for (NaiveJob& job : jobs_) {
    scheduler_.finish(*job.ticket, Scheduler::Outcome::kCancelled, now_);
  }
  EXPECT_GT(promotions_, 10);
  EXPECT_EQ(queue_->waiting + queue_->running, 0U);
  EXPECT_EQ(queue_->owners(), 0U);
  std::vector<Scheduler::Expired> none;
  scheduler_.advance_to(now_ + kAgingNs, none);  // lanes find that nobody waits
  EXPECT_EQ(scheduler_.next_event(), INT64_MAX);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerModelTest, testing::Range<uint64_t>(1, 9));

}  // namespace
}  // namespace penstock::queue
