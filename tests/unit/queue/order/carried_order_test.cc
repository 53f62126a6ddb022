#include "worker/queue/order/carried_order.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <memory>
#include <random>

#include "shared/base/clock.h"

namespace penstock::queue {
namespace {

using State = Scheduler::Ticket::State;

struct Job : Scheduler::Ticket {
  uint64_t id = 0;
};

// A scheduler with two lanes and what is in it.
struct House {
  House() {
    queue = &scheduler.set_queue({.name = "default",
                                  .attempts = 10,
                                  .deadline_ns = 500 * kNsPerSec,
                                  .backoff_ns = kNsPerSec,
                                  .aging_ns = 5 * kNsPerSec});
    lanes = {&queue->any_model(), &scheduler.lane(*queue, "a"), &scheduler.lane(*queue, "b")};
    scheduler.set_capacity(*lanes[1], 4);
    scheduler.set_capacity(*lanes[2], 2);
  }
  void add(uint64_t id, size_t lane, const Scheduler::Entry& entry, int64_t now_ns) {
    auto job = std::make_unique<Job>();
    job->id = id;
    ASSERT_EQ(scheduler.add(*job, *lanes[lane], entry, now_ns), Scheduler::Admission::kAdded);
    jobs[id] = std::move(job);
  }
  uint64_t take(size_t lane, int64_t now_ns) {
    auto* const job = static_cast<Job*>(scheduler.take(*lanes[lane], now_ns));
    return job == nullptr ? 0 : job->id;
  }
  void finish(uint64_t id, int64_t now_ns) {
    scheduler.finish(*jobs.at(id), Scheduler::Outcome::kCompleted, now_ns);
    jobs.erase(id);
  }
  std::vector<uint64_t> advance(int64_t now_ns) {
    std::vector<Scheduler::Expired> expired;
    scheduler.advance_to(now_ns, expired);
    std::vector<uint64_t> ids;
    for (const auto& each : expired) {
      ids.push_back(static_cast<Job*>(each.ticket)->id);
      jobs.erase(ids.back());
    }
    std::sort(ids.begin(), ids.end());
    return ids;
  }

  Scheduler scheduler;
  Scheduler::Queue* queue;
  std::vector<Scheduler::Lane*> lanes;
  std::map<uint64_t, std::unique_ptr<Job>> jobs;
};

void carry(House& from, House& to, int64_t now_ns) {
  const CarriedOrder order(from.scheduler);
  std::map<uint64_t, CarriedJob> carried;
  for (const auto& [id, job] : from.jobs) {
    order.note(*job, carried[id]);
  }
  auto writer = RecordWriter::create();
  writer->add(CarriedBegin{.format = kNewestFormat});
  order.write(*writer);
  const auto memory = writer->finish();
  struct stat status {};
  ::fstat(memory->get(), &status);
  std::string record(static_cast<size_t>(status.st_size), '\0');
  ASSERT_EQ(::pread(memory->get(), record.data(), record.size(), 0),
            static_cast<ssize_t>(record.size()));
  CarriedOrder next(to.scheduler);
  for (const auto& [id, job] : carried) {
    auto fresh = std::make_unique<Job>();
    fresh->id = id;
    const bool runs = job.state == static_cast<uint64_t>(State::kRunning);
    next.restore(*fresh, to.scheduler.lane(*to.queue, job.model),
                 runs ? &to.scheduler.lane(*to.queue, job.served_by) : nullptr, job, now_ns);
    to.jobs[id] = std::move(fresh);
  }
  for (RecordReader reader(record); reader.next();) {
    EXPECT_EQ(next.read(reader), reader.type() != CarriedBegin::kType);
  }
}

void expect_same(House& a, House& b, int64_t now_ns) {
  ASSERT_EQ(a.jobs.size(), b.jobs.size());
  for (const auto& [id, job] : a.jobs) {
    const Job& other = *b.jobs.at(id);
    EXPECT_EQ(job->state(), other.state());
    EXPECT_EQ(job->attempts(), other.attempts());
    EXPECT_EQ(job->arrived_ns(), other.arrived_ns());
    EXPECT_EQ(job->deadline_ns(), other.deadline_ns());
    EXPECT_EQ(job->started_ns(), other.started_ns());
    EXPECT_EQ(job->promoted(), other.promoted());
    EXPECT_EQ(a.scheduler.position(*job), b.scheduler.position(other)) << id;
    EXPECT_EQ(a.scheduler.predicted_wait_ns(*job, now_ns),
              b.scheduler.predicted_wait_ns(other, now_ns));
  }
  EXPECT_EQ(a.queue->waiting, b.queue->waiting);
  EXPECT_EQ(a.queue->scheduled, b.queue->scheduled);
  EXPECT_EQ(a.queue->running, b.queue->running);
  EXPECT_EQ(a.queue->owners(), b.queue->owners());
  EXPECT_EQ(a.scheduler.next_event(), b.scheduler.next_event());
}

// The same things are done to both from then on, and both do the same.
TEST(CarriedOrderTest, GoesOnAsIfNothingHadBeen) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    std::mt19937 random(seed);
    const auto upto = [&](uint64_t most) { return random() % most; };
    auto first = std::make_unique<House>();
    std::unique_ptr<House> second;
    int64_t now_ns = 1000 * kNsPerSec;
    uint64_t last = 0;
    std::vector<uint64_t> running;
    for (int step = 0; step < 600; ++step) {
      now_ns += static_cast<int64_t>(upto(kNsPerSec));
      if (step % 150 == 100) {  // also of one that was carried before
        second = std::make_unique<House>();
        carry(*first, *second, now_ns);
        expect_same(*first, *second, now_ns);
        if (step > 300) {
          first = std::make_unique<House>();
          carry(*second, *first, now_ns);
        }
      }
      House* const b = second.get();
      const auto gone = first->advance(now_ns);
      if (b != nullptr) {
        ASSERT_EQ(gone, b->advance(now_ns)) << seed << " " << step;
      }
      for (const uint64_t id : gone) {
        std::erase(running, id);
      }
      const uint64_t what = upto(10);
      if (what < 5) {
        Scheduler::Entry entry{.owner = 1 + upto(5),
                               .priority = static_cast<int64_t>(upto(3)),
                               .cost = 1 + upto(50),
                               .weight = 1 + upto(4)};
        if (upto(8) == 0) {
          entry.not_before_ns = now_ns + static_cast<int64_t>(upto(20) + 1) * kNsPerSec;
        }
        if (upto(6) == 0) {
          entry.deadline_ns = now_ns + static_cast<int64_t>(upto(60) + 30) * kNsPerSec;
        }
        const size_t lane = upto(3);
        first->add(++last, lane, entry, now_ns);
        if (b != nullptr) {
          b->add(last, lane, entry, now_ns);
        }
      } else if (what < 8) {
        const size_t lane = 1 + upto(2);
        const uint64_t id = first->take(lane, now_ns);
        if (b != nullptr) {
          ASSERT_EQ(id, b->take(lane, now_ns)) << seed << " " << step;
        }
        if (id != 0) {
          running.push_back(id);
        }
      } else if (!running.empty()) {
        const size_t at = upto(running.size());
        const uint64_t id = running[at];
        running.erase(running.begin() + static_cast<ptrdiff_t>(at));
        if (b == nullptr && upto(3) == 0) {  // back-offs are random
          first->scheduler.retry(*first->jobs.at(id), Scheduler::Cause::kJobFailed, now_ns);
          continue;
        }
        first->finish(id, now_ns);
        if (b != nullptr) {
          b->finish(id, now_ns);
        }
      }
    }
    ASSERT_NE(second, nullptr);
    expect_same(*first, *second, now_ns);
  }
}

}  // namespace
}  // namespace penstock::queue
