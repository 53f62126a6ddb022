// The order in Redis beside the Scheduler: random histories, played into both.
//
// PENSTOCK_HISTORIES says how many (200, or 20 where a sanitizer looks on), PENSTOCK_SEED with
// which the first begins.
//
// Of what is due at the same moment the two need not take the same first. So no two timers that a
// history sets are due at once; and where several lanes age, time goes from event to event.
// Redis does what is due when it is asked: at each step, as the Scheduler does. Else what was
// scheduled, and expires unseen, would be over without having stood in line, and in another order.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "shared/base/clock.h"
#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

using End = SharedOrder::End;

struct Job : Scheduler::Ticket {
  std::string id;
  std::string host;  // while it runs
  uint64_t fence = 0;
  int64_t ends_by_ns = 0;  // its deadline, once it has been taken; 0: the same
};

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

struct Tally {
  uint64_t operations = 0, taken = 0, positions = 0, expired = 0, promoted = 0, retried = 0,
           reaped = 0, finished = 0;
};

class History {
 public:
  History(OrderClient& client, uint64_t seed, Tally& tally)
      : client_(client), random_(seed), tally_(tally), settings_(make_settings(seed)) {
    order_ = std::make_unique<SharedOrder>(client_.servers(), settings_, 60'000);
    queue_ = &scheduler_.set_queue(settings_);
    for (size_t i = 1 + below(3); i > 0; --i) {
      lanes_.push_back(std::vector<std::string>{"", "m", "k/ü"}[i - 1]);
      scheduler_.lane(*queue_, lanes_.back());
    }
    for (const int64_t priority :
         std::vector<int64_t>{-5, 0, 1, 10, int64_t{1} << 40, SharedOrder::kHighest}) {
      if (below(2) == 0 || priorities_.empty()) {
        priorities_.push_back(priority);
      }
    }
    big_ = below(3) == 0;
    order_->set_clock(now_us_);
    for (std::string& host : hosts_) {
      join(host);
    }
  }

  void play() {
    for (uint64_t steps = 20 + below(140); steps > 0 && !testing::Test::HasFailure(); --steps) {
      pass_time();
      ++tally_.operations;
      const uint64_t die = below(100);
      if (die < 42) {
        add();
      } else if (die < 78) {
        serve();
      } else {
        advance();
        if (die < 84) {
          give_back(Scheduler::Cause::kJobFailed);
        } else if (die < 87) {
          give_back(Scheduler::Cause::kWorkerLost);
        } else if (die < 91) {
          requeue();
        } else if (die < 94) {
          cancel();
        } else if (die < 96) {
          pause();
        } else {
          lose_host();
        }
      }
      if (below(3) == 0) {
        compare_positions();
      }
    }
    end();
  }

 private:
  static Scheduler::QueueSettings make_settings(uint64_t seed) {
    std::mt19937_64 random(seed ^ 0x5eed);
    const auto one_of = [&](std::vector<int64_t> values) {
      return values[random() % values.size()];
    };
    return {.name = "q" + std::to_string(seed),
            .max_length = static_cast<uint32_t>(one_of({5, 1000, 1000})),
            .max_per_owner = static_cast<uint32_t>(one_of({0, 0, 3})),
            .attempts = static_cast<uint32_t>(one_of({1, 2, 3, 4})),
            .deadline_ns = one_of({0, 0, 901}) * kNsPerUs,
            .backoff_ns = one_of({0, 0, 60}) * kNsPerUs,
            .aging_ns = one_of({0, 51, 303}) * kNsPerUs};
  }

  uint64_t below(uint64_t n) { return random_() % n; }
  template <typename T>
  const T& one_of(const std::vector<T>& values) {
    return values[below(values.size())];
  }
  int64_t now_ns() const { return now_us_ * kNsPerUs; }

  // A time at which nothing else of this history is due.
  int64_t own_time(int64_t at_us) {
    while (!times_.insert(at_us).second) {
      ++at_us;
    }
    return at_us;
  }

  void join(std::string& host) {
    char name[9];
    std::snprintf(name, sizeof name, "%08x", ++names_);
    host = name;
    const auto renewed = client_.get<SharedOrder::Renewed>([&](auto then) {
      return order_->renew(host, SharedOrder::Life::kJoins, int64_t{1} << 50, then);
    });
    ASSERT_TRUE(renewed.known);
  }

  // ---- time

  void pass_time() {
    const int64_t to_us = own_time(now_us_ + one_of<int64_t>({1, 8, 8, 56, 320}));
    while (lanes_.size() > 1 && settings_.aging_ns > 0 && now_us_ < to_us) {
      if (scheduler_.next_event() == INT64_MAX) {
        break;
      }
      const int64_t next_us = (scheduler_.next_event() + kNsPerUs - 1) / kNsPerUs;
      if (next_us >= to_us) {
        break;
      }
      set_time(std::max(next_us, now_us_));
      advance();
    }
    set_time(to_us);
  }
  void set_time(int64_t now_us) {
    now_us_ = now_us;
    order_->set_clock(now_us);
    scheduler_.advance_to(now_ns(), due_);
  }

  // The order does by itself what is due, when it is asked to add or serve; or now, by a word.
  void advance() {
    scheduler_.advance_to(now_ns(), due_);  // a deadline may have been set that had passed
    std::vector<std::string> told;
    SharedOrder::Advanced advanced;
    do {
      advanced =
          client_.get<SharedOrder::Advanced>([&](auto then) { return order_->advance(then); });
      told.insert(told.end(), advanced.expired.begin(), advanced.expired.end());
    } while (advanced.due_us == 0);
    std::vector<std::string> expected;
    for (const Scheduler::Expired& each : due_) {
      expected.push_back(static_cast<Job*>(each.ticket)->id);
    }
    if (std::exchange(overdue_, false)) {  // those have no order in the Scheduler
      std::sort(told.begin(), told.end());
      std::sort(expected.begin(), expected.end());
    }
    ASSERT_EQ(told, expected);
    forget_expired();
  }
  void forget_expired() {
    for (const Scheduler::Expired& each : due_) {
      over(static_cast<Job*>(each.ticket)->id);
      ++tally_.expired;
    }
    due_.clear();
  }
  void maybe_advance() {
    if (below(2) == 0) {
      advance();
    } else {
      forget_expired();
    }
  }

  // ---- jobs

  void over(const std::string& id) {
    over_.push_back(id);  // which may be the job's own
    jobs_.erase(id);
  }
  Job* some(bool running) {
    std::vector<Job*> choice;
    for (const auto& [id, job] : jobs_) {
      if (!running || job->state() == Scheduler::Ticket::State::kRunning) {
        choice.push_back(job.get());
      }
    }
    return choice.empty() ? nullptr : one_of(choice);
  }

  struct Newcomer {
    std::unique_ptr<Job> job;
    Scheduler::Entry entry;
    const std::string* lane;
    int64_t last_position;
  };
  // Nothing: another thing of this history is due when it would be.
  std::optional<Newcomer> newcomer() {
    auto job = std::make_unique<Job>();
    char id[16];
    std::snprintf(id, sizeof id, "job_%06u", ++ids_);
    job->id = id;
    const std::string& lane = one_of(lanes_);
    Scheduler::Entry entry;
    entry.owner = (1 + below(6)) << (below(2) == 0 ? 0 : 60);
    entry.priority = one_of(priorities_);
    entry.cost = 1 + below(big_ ? FairShare::kMaxCost : 9);
    entry.weight = big_ ? one_of<uint64_t>({1, 2, 3, FairShare::kMaxWeight}) : 1 + below(4);
    entry.attempts = below(16) == 0 ? 1 : 0;
    entry.force = below(32) == 0;
    if (below(5) == 0) {
      entry.not_before_ns = own_time(now_us_ + 1 + static_cast<int64_t>(below(200))) * kNsPerUs;
    }
    if (below(16) == 0) {
      entry.arrived_ns = (now_us_ - static_cast<int64_t>(below(100))) * kNsPerUs;
    }
    if (below(5) == 0) {
      entry.deadline_ns = own_time(now_us_ + 1 + static_cast<int64_t>(below(900))) * kNsPerUs;
    } else if (settings_.deadline_ns > 0) {
      const int64_t came_ns =
          std::max(entry.arrived_ns != 0 ? entry.arrived_ns : now_ns(), entry.not_before_ns);
      if (!times_.insert((came_ns + settings_.deadline_ns) / kNsPerUs).second) {
        return std::nullopt;
      }
    }
    if (below(8) == 0) {
      job->ends_by_ns = below(4) == 0
                            ? INT64_MAX
                            : own_time(now_us_ + 300 + static_cast<int64_t>(below(900))) * kNsPerUs;
    }
    return Newcomer{std::move(job), entry, &lane, below(2) == 0 ? 0 : SharedOrder::kNever};
  }

  // Some in one request, as if one after the other.
  void add() {
    std::vector<Newcomer> some;
    for (uint64_t n = below(2) == 0 ? 1 : 1 + below(6); n > 0; --n) {
      if (auto one = newcomer()) {
        some.push_back(std::move(*one));
      }
    }
    if (some.empty()) {
      return advance();
    }
    maybe_advance();
    std::vector<SharedOrder::Job> jobs;
    jobs.reserve(some.size());
    for (const auto& [job, entry, lane, last_position] : some) {
      jobs.push_back({.id = job->id,
                      .lane = *lane,
                      .owner = entry.owner,
                      .priority = entry.priority,
                      .cost = entry.cost,
                      .weight = entry.weight,
                      .not_before_us = entry.not_before_ns / kNsPerUs,
                      .came_us = entry.arrived_ns / kNsPerUs,
                      .deadline_us = entry.deadline_ns / kNsPerUs,
                      .attempts = entry.attempts,
                      .force = entry.force,
                      .ends_by_us = job->ends_by_ns == INT64_MAX ? SharedOrder::kNever
                                                                 : job->ends_by_ns / kNsPerUs,
                      .last_position = last_position,
                      .body = job->id});
    }
    const auto added = client_.get<std::vector<SharedOrder::Added>>(
        [&](auto then) { return order_->add(jobs, then); });
    ASSERT_EQ(added.size(), some.size());
    for (size_t i = 0; i < some.size(); ++i) {
      auto& [job, entry, lane, last_position] = some[i];
      const auto expected = scheduler_.add(*job, scheduler_.lane(*queue_, *lane), entry, now_ns());
      ASSERT_EQ(static_cast<int>(added[i].admission) - 1, static_cast<int>(expected));
      if (expected != Scheduler::Admission::kAdded) {
        continue;
      }
      if (last_position == 0) {
        ASSERT_EQ(added[i].position, scheduler_.position(*job)) << "of " << job->id;
        ++tally_.positions;
      }
      jobs_[job->id] = std::move(job);
    }
  }

  // What a host has finished, right or wrong, and what it takes, in one trip.
  void serve() {
    maybe_advance();
    const std::string& host = hosts_[below(2)];
    const std::string& lane = one_of(lanes_);
    std::vector<SharedOrder::Finished> finished;
    std::vector<End> ends;
    std::vector<std::string> ids;
    for (uint64_t n = below(2) == 0 ? below(3) : below(9); n > 0; --n) {
      if (Job* const job = some(below(4) != 0);
          job != nullptr && std::find(ids.begin(), ids.end(), job->id) == ids.end()) {
        const uint64_t fence = job->fence - (below(8) == 0 ? 1 : 0);
        const bool ours = job->host == host && fence == job->fence;
        ids.push_back(job->id);
        finished.push_back({"", fence, "done"});
        ends.push_back(ours ? End::kEnded : End::kNotOurs);
      }
    }
    if (below(8) == 0 && !over_.empty()) {
      ids.push_back(one_of(over_));
      finished.push_back({"", 1, "done"});
      ends.push_back(End::kOver);
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      finished[i].id = ids[i];
    }
    const uint64_t most = below(8) == 0 ? below(12) : below(4);
    const auto served = client_.get<SharedOrder::Served>(
        [&](auto then) { return order_->serve(host, lane, most, finished, then); });
    ASSERT_TRUE(served.known);
    ASSERT_EQ(served.ended, ends);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ends[i] == End::kEnded) {
        scheduler_.finish(*jobs_.at(ids[i]), Scheduler::Outcome::kCompleted, now_ns());
        over(ids[i]);
        ++tally_.finished;
      }
    }
    for (uint64_t i = 0; i < most; ++i) {
      auto* const job =
          static_cast<Job*>(scheduler_.take(scheduler_.lane(*queue_, lane), now_ns()));
      if (job == nullptr) {
        ASSERT_EQ(served.taken.size(), i);
        break;
      }
      ASSERT_GT(served.taken.size(), i) << "beside " << job->id;
      const SharedOrder::Taken& taken = served.taken[i];
      ASSERT_EQ(taken.id, job->id);
      ASSERT_GT(taken.fence, job->fence);
      job->fence = taken.fence;
      ASSERT_EQ(taken.attempts, job->attempts());
      ASSERT_EQ(taken.came_us, job->arrived_ns() / kNsPerUs);
      ASSERT_EQ(taken.owner, Scheduler::owner_of(*job));
      ASSERT_EQ(taken.lane, job->lane()->model);
      ASSERT_EQ(taken.body, job->id);
      if (const int64_t ends_by_ns = std::exchange(job->ends_by_ns, 0); ends_by_ns != 0) {
        scheduler_.set_deadline(*job, ends_by_ns);
        overdue_ = overdue_ || ends_by_ns <= now_ns();
      }
      job->host = host;
      ++tally_.taken;
      tally_.promoted += job->promoted() ? 1 : 0;
    }
  }

  void give_back(Scheduler::Cause cause) {
    Job* const job = some(true);
    if (job == nullptr) {
      return;
    }
    const uint32_t attempts = job->attempts();
    const auto end = client_.get<End>([&](auto then) {
      return order_->retry({job->id, job->host, job->fence, "failed"}, attempts, cause, then);
    });
    const bool back = scheduler_.retry(*job, cause, now_ns());
    ASSERT_EQ(end, back ? End::kEnded : End::kLastAttempt);
    job->host.clear();
    ++tally_.retried;
    if (!back) {
      over(job->id);
    }
  }

  void requeue() {
    if (Job* const job = some(true); job != nullptr) {
      const bool later = below(2) == 0;
      const int64_t until_us = own_time(now_us_ + 1 + static_cast<int64_t>(below(100)));
      const auto end = client_.get<End>([&](auto then) {
        return order_->requeue({job->id, job->host, job->fence, ""}, later ? until_us - now_us_ : 0,
                               then);
      });
      ASSERT_EQ(end, End::kEnded);
      job->host.clear();
      later ? scheduler_.postpone(*job, until_us * kNsPerUs) : scheduler_.requeue(*job, now_ns());
    }
  }

  void cancel() {
    if (Job* const job = some(false); job != nullptr) {
      ASSERT_EQ(client_.get<End>([&](auto then) { return order_->cancel(job->id, "", then); }),
                End::kEnded);
      scheduler_.finish(*job, Scheduler::Outcome::kCancelled, now_ns());
      over(job->id);
    }
  }

  void pause() {
    queue_->paused ? scheduler_.resume(*queue_) : scheduler_.pause(*queue_);
    client_.get<bool>([&](auto then) { return order_->pause(queue_->paused, then); });
  }

  // Its lease ends, and anybody takes back what it ran. The back-off's jitter is another one.
  void lose_host() {
    if (settings_.backoff_ns > 0) {
      return;
    }
    std::string& host = hosts_[below(2)];
    const auto renewed = client_.get<SharedOrder::Renewed>(
        [&](auto then) { return order_->renew(host, SharedOrder::Life::kLeaves, 1, then); });
    std::vector<Job*> lost;
    for (const auto& [id, job] : jobs_) {
      if (job->state() == Scheduler::Ticket::State::kRunning && job->host == host) {
        lost.push_back(job.get());
      }
    }
    ASSERT_EQ(renewed.running, lost.size());
    uint64_t back = 0, ended = 0;
    SharedOrder::Reaped reaped;
    do {
      reaped = client_.get<SharedOrder::Reaped>(
          [&](auto then) { return order_->reap(1 + below(3), then); });
      back += reaped.back;
      ended += reaped.over;
    } while (reaped.hosts > 0);
    ASSERT_EQ(back + ended, lost.size());
    for (Job* const job : lost) {
      job->host.clear();
      ++tally_.reaped;
      if (scheduler_.retry(*job, Scheduler::Cause::kWorkerLost, now_ns())) {
        --back;
      } else {
        over(job->id);
      }
    }
    ASSERT_EQ(back, 0U);
    join(host);
  }

  void compare_positions() {
    advance();
    std::vector<std::string_view> ids;
    std::vector<int64_t> expected;
    for (const auto& [id, job] : jobs_) {
      ids.push_back(id);
      expected.push_back(scheduler_.position(*job));
    }
    if (!over_.empty()) {
      ids.push_back(over_.back());
      expected.push_back(-1);
    }
    ASSERT_EQ(
        client_.get<std::vector<int64_t>>([&](auto then) { return order_->positions(ids, then); }),
        expected);
    tally_.positions += ids.size();
  }

  // All jobs end.
  void end() {
    advance();
    while (!jobs_.empty() && !testing::Test::HasFailure()) {
      cancel();
    }
  }

  OrderClient& client_;
  std::mt19937_64 random_;
  Tally& tally_;
  Scheduler::QueueSettings settings_;
  std::unique_ptr<SharedOrder> order_;
  Scheduler scheduler_;
  Scheduler::Queue* queue_;
  std::vector<std::string> lanes_;
  std::vector<int64_t> priorities_;
  bool big_ = false;
  bool overdue_ = false;  // a job was taken whose last deadline had passed
  int64_t now_us_ = 1'000'000'000'000;
  std::set<int64_t> times_;
  std::map<std::string, std::unique_ptr<Job>> jobs_;
  std::vector<std::string> over_;
  std::vector<Scheduler::Expired> due_;
  std::string hosts_[2];
  unsigned names_ = 0, ids_ = 0;
};

TEST(SharedOrderHistoriesTest, TakesTheJobsThatTheSchedulerTakes) {
  RedisServer server;
  OrderClient client(server.socket());
  const uint64_t first = from_environment("PENSTOCK_SEED", 1);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr uint64_t kUsual = 20;
#else
  constexpr uint64_t kUsual = 200;
#endif
  const uint64_t count = from_environment("PENSTOCK_HISTORIES", kUsual);
  Tally tally;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("PENSTOCK_SEED=" + std::to_string(seed));
    History(client, seed, tally).play();
    ASSERT_FALSE(HasFailure());
    // Nothing of a job is left but what is kept of it.
    const std::string queue = "test:q1:{q" + std::to_string(seed) + "}:";
    for (const char* const kind : {"l|*", "f|*", "i|*", "h|*", "t", "o", "k|*"}) {
      ASSERT_EQ(server.ask("KEYS " + queue + kind), "") << kind;
    }
    ASSERT_EQ(server.ask("HGET " + queue + "s w").value_or(""), "0");
    ASSERT_EQ(server.ask("FLUSHALL"), "OK");
  }
  std::printf(
      "%llu histories: %llu operations, %llu taken (%llu let before), %llu finished, %llu expired, "
      "%llu failed, %llu reaped, %llu positions\n",
      static_cast<unsigned long long>(count), static_cast<unsigned long long>(tally.operations),
      static_cast<unsigned long long>(tally.taken), static_cast<unsigned long long>(tally.promoted),
      static_cast<unsigned long long>(tally.finished),
      static_cast<unsigned long long>(tally.expired),
      static_cast<unsigned long long>(tally.retried), static_cast<unsigned long long>(tally.reaped),
      static_cast<unsigned long long>(tally.positions));
  if (count >= 100) {
    EXPECT_GT(tally.promoted, 10U);
    EXPECT_GT(tally.expired, 100U);
    EXPECT_GT(tally.reaped, 50U);
  }
}

}  // namespace
}  // namespace penstock::queue
