// BENCH.md Q4: the scheduler's own cost: add, take, position and predicted wait with 1,000 and
// 1,000,000 jobs queued, of 10,000 owners in four classes, deadlines and aging on.
//
//   scheduler_bench [N...]
//   scheduler_bench --read    only the read at random, to tell how steady the machine is
//
// Each figure is the median of five runs of 20,000 operations on jobs chosen at random, whose
// tickets are not in the cache; `finish` is beside them because what is taken must be finished. For
// comparison: what one read at random takes in as much memory as a million jobs have.
//
// MEM is what a queued job takes in all: ticket, order, deadline and its share of its owner.
// Lines are `name=value` for the bench's table.

#include <malloc.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/order/scheduler.h"

namespace penstock::queue {
namespace {

constexpr int kRuns = 5;
constexpr size_t kOperations = 20'000;
constexpr uint64_t kOwners = 10'000;

uint64_t mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

class Bench {
 public:
  explicit Bench(size_t jobs)
      : count_(jobs), tickets_(jobs + kOperations), waits_(tickets_.size()) {
    queue_ = &scheduler_.set_queue({.name = "q",
                                    .max_length = UINT32_MAX,
                                    .deadline_ns = 600 * kNsPerSec,
                                    .aging_ns = kNsPerSec});
    lane_ = &scheduler_.lane(*queue_, "m");
    scheduler_.set_capacity(*lane_, 8);
    for (auto& ticket : tickets_) {
      free_.push_back(&ticket);
    }
    add(1);  // teaches a service time
    take(1);
    finish(1);
    add(jobs);
  }

  void measure() {
    // What is added is taken again in pieces no larger than a tenth of the queue, so that its
    // length stays about what it is said to be.
    const size_t piece = std::min(kOperations, std::max<size_t>(1, count_ / 10));
    std::vector<double> times[5];
    for (int run = 0; run < kRuns; ++run) {
      int64_t spent[5] = {};
      for (size_t done = 0; done < kOperations; done += piece) {
        spent[0] += timed([&] { add(piece); });
        pick(piece);
        spent[1] += timed([&] { position(); });
        pick(piece);
        spent[2] += timed([&] { predict(); });
        spent[3] += timed([&] { take(piece); });
        spent[4] += timed([&] { finish(piece); });
      }
      const size_t operations = (kOperations + piece - 1) / piece * piece;
      for (int op = 0; op < 5; ++op) {
        times[op].push_back(static_cast<double>(spent[op]) / static_cast<double>(operations));
      }
    }
    static constexpr const char* kNames[] = {"add", "position", "predicted_wait", "take", "finish"};
    for (int op = 0; op < 5; ++op) {
      std::sort(times[op].begin(), times[op].end());
      std::printf("Q4 op=%s n=%zu owners=%lu ours_ns=%.0f\n", kNames[op], count_, kOwners,
                  times[op][kRuns / 2]);
    }
    if (sink_ == 42) {
      std::printf("\n");
    }
  }

 private:
  static int64_t timed(const std::function<void()>& work) {
    const int64_t start = monotonic_ns();
    work();
    return monotonic_ns() - start;
  }
  void add(size_t jobs) {
    for (size_t i = 0; i < jobs; ++i) {
      const uint64_t r = mix(++random_);
      Scheduler::Ticket& ticket = *free_.back();
      free_.pop_back();
      waits_[index(ticket)] = true;
      scheduler_.add(ticket, *lane_,
                     {.owner = mix(r % kOwners),
                      .priority = static_cast<int64_t>(r >> 32 & 3),
                      .cost = 1 + (r >> 40 & 1023),
                      .weight = 1 + (r % kOwners & 3)},
                     now_ += 1000);
    }
  }
  void take(size_t jobs) {
    for (size_t i = 0; i < jobs; ++i) {
      running_.push_back(scheduler_.take(*lane_, now_));
      waits_[index(*running_.back())] = false;
    }
  }
  void finish(size_t jobs) {
    for (size_t i = 0; i < jobs; ++i) {
      scheduler_.finish(*running_.back(), Scheduler::Outcome::kCompleted, now_);
      free_.push_back(running_.back());
      running_.pop_back();
    }
  }
  // Without a look at the tickets themselves, which would bring them into the cache.
  void pick(size_t jobs) {
    chosen_.clear();
    while (chosen_.size() < jobs) {
      const size_t at = mix(++random_) % tickets_.size();
      if (waits_[at]) {
        chosen_.push_back(&tickets_[at]);
      }
    }
  }
  size_t index(const Scheduler::Ticket& ticket) const {
    return static_cast<size_t>(&ticket - tickets_.data());
  }
  void position() {
    for (const auto* ticket : chosen_) {
      sink_ += scheduler_.position(*ticket);
    }
  }
  void predict() {
    for (const auto* ticket : chosen_) {
      sink_ += static_cast<uint64_t>(scheduler_.predicted_wait_ns(*ticket, now_));
    }
  }

  size_t count_;
  std::vector<Scheduler::Ticket> tickets_;
  std::vector<bool> waits_;  // by index
  std::vector<Scheduler::Ticket*> free_;
  std::vector<Scheduler::Ticket*> running_;
  std::vector<const Scheduler::Ticket*> chosen_;
  Scheduler scheduler_;
  Scheduler::Queue* queue_;
  Scheduler::Lane* lane_;
  int64_t now_ = kNsPerSec;
  uint64_t random_ = 0;
  uint64_t sink_ = 0;
};

// Each read says where the next one is.
void read_at_random() {
  constexpr size_t kLines = size_t{128} << 20 >> 6;
  constexpr size_t kReads = 1'000'000;
  struct alignas(64) Line {
    uint64_t next = 0;
  };
  std::vector<Line> lines(kLines);
  for (size_t i = 0; i < kLines; ++i) {
    lines[i].next = mix(i) % kLines;
  }
  uint64_t at = 1;
  const int64_t start = monotonic_ns();
  for (size_t i = 0; i < kReads; ++i) {
    at = (lines[at].next + i) % kLines;
  }
  const auto spent = static_cast<double>(monotonic_ns() - start);
  std::printf("READ bytes=%zu ours_ns=%.0f last=%lu\n", kLines * sizeof(Line), spent / kReads, at);
}

void bytes_a_job(uint64_t owners) {
  constexpr size_t kJobs = 100'000;
  const size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
  Scheduler scheduler;
  Scheduler::Lane& lane = scheduler.lane(
      scheduler.set_queue({.name = "q", .max_length = UINT32_MAX, .deadline_ns = 600 * kNsPerSec}),
      "m");
  std::vector<Scheduler::Ticket> tickets(kJobs);
  for (size_t i = 0; i < kJobs; ++i) {
    const uint64_t r = mix(i);
    scheduler.add(tickets[i], lane, {.owner = mix(r % owners), .cost = 1 + (r >> 40 & 1023)},
                  kNsPerSec + static_cast<int64_t>(i));
  }
  const size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
  std::printf("MEM jobs=%zu owners=%lu ours_bytes=%.1f\n", kJobs, owners,
              static_cast<double>(after - before) / kJobs);
}

}  // namespace
}  // namespace penstock::queue

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--read") {
    penstock::queue::read_at_random();
    return 0;
  }
  std::vector<size_t> counts;
  for (int i = 1; i < argc; ++i) {
    counts.push_back(std::strtoull(argv[i], nullptr, 10));
  }
  if (counts.empty()) {
    counts = {1000, 1'000'000};
    penstock::queue::bytes_a_job(1);
    penstock::queue::bytes_a_job(10'000);
    penstock::queue::read_at_random();
  }
  for (const size_t count : counts) {
    std::make_unique<penstock::queue::Bench>(count)->measure();
  }
}
