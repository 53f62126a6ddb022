// Real threads and processes on one table. These run under ThreadSanitizer.

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <functional>
#include <thread>

#include "tests/unit/limit/limit_fixture.h"

namespace penstock::limit {
namespace {

constexpr unsigned kThreads = 4;

void in_threads(const std::function<void(unsigned)>& work) {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; ++i) {
    threads.emplace_back(work, i);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(RaceTest, ThreadsOnAHotKeyAreAdmittedExactlyTheBurst) {
  const SharedMemory memory(Table::bytes_for(100));
  auto table = make_table<Table>(memory);
  const uint64_t burst = 200'000 / kScale;
  const GcraPolicy limit = policy(burst, 31 * kDay);
  std::atomic<uint64_t> admitted = 0;
  in_threads([&](unsigned) {
    uint64_t mine = 0;
    for (uint64_t i = 0; i < burst / 2; ++i) {
      mine += charge_one(table, limit, key(1)) == Outcome::admitted ? 1 : 0;
    }
    admitted += mine;
  });
  EXPECT_EQ(admitted, burst);
  EXPECT_EQ(units_charged(table, limit, key(1)), burst);
}

TEST(RaceTest, EveryLimitHoldsExactlyWhatWasAdmittedDespiteRollBacks) {
  const SharedMemory memory(Table::bytes_for(100));
  auto table = make_table<Table>(memory);
  std::vector<GcraPolicy> limits;
  for (uint64_t i = 0; i < 8; ++i) {
    limits.push_back(policy(5000 / kScale + 100 * i, kDay));
  }
  std::vector<std::atomic<uint64_t>> charged(limits.size());
  in_threads([&](unsigned thread) {
    std::mt19937_64 random(thread);
    for (uint64_t i = 0; i < 100'000 / kScale; ++i) {
      std::vector<Charge> charges;
      std::vector<size_t> which;
      for (size_t l = 0; l < limits.size(); ++l) {
        if (random() % 2 == 0) {
          charges.push_back({&limits[l], key(l), 1 + random() % 4});
          which.push_back(l);
        }
      }
      std::swap_ranges(charges.begin(), charges.begin() + charges.size() / 2,
                       charges.begin() + (charges.size() + 1) / 2);
      std::swap_ranges(which.begin(), which.begin() + which.size() / 2,
                       which.begin() + (which.size() + 1) / 2);
      if (charge_all(table, std::span(charges), kNow) != Outcome::admitted) {
        continue;
      }
      if (random() % 2 == 0) {
        refund_all(table, std::span<const Charge>(charges), kNow);
        continue;
      }
      for (size_t c = 0; c < charges.size(); ++c) {
        charged[which[c]] += charges[c].cost;
      }
    }
  });
  for (size_t l = 0; l < limits.size(); ++l) {
    EXPECT_EQ(units_charged(table, limits[l], key(l)), charged[l]);
    EXPECT_LE(charged[l], limits[l].burst);
    EXPECT_GT(charged[l], limits[l].burst / 10);
  }
}

// Each round all threads insert the same new key while others' keys come and go around it.
TEST(RaceTest, AKeyInsertedByAllAtOnceIsAdmittedExactlyItsBurst) {
  const SharedMemory memory(Table::bytes_for(64));
  auto table = make_table<Table>(memory);
  const GcraPolicy brief = policy(10'000'000, kSecond, 1);
  const GcraPolicy limit = policy(2, kSecond, 2);
  const uint64_t rounds = 5'000 / kScale;
  std::atomic<int64_t> clock = kNow;
  std::atomic<uint64_t> admitted = 0;
  std::atomic<uint64_t> wrong = 0;
  std::barrier gate(kThreads);
  in_threads([&](unsigned thread) {
    std::mt19937_64 random(thread);
    for (uint64_t round = 0; round < rounds; ++round) {
      gate.arrive_and_wait();
      for (int i = 0; i < 6; ++i) {
        const int64_t now = clock.fetch_add(20);
        charge_one(table, brief, key(random()), now);
        admitted += charge_one(table, limit, key(round), now) == Outcome::admitted ? 1 : 0;
      }
      gate.arrive_and_wait();
      if (thread == 0) {
        wrong += admitted.exchange(0) != 2 ? 1 : 0;
        clock += 50'000'000;
      }
    }
  });
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(table.full_events(), 0u);
}

struct Tally {
  std::atomic<uint64_t> admitted;
  std::atomic<uint64_t> steps;
};

// What one worker process does: charges five limits at a time, as often as it can.
void be_a_worker(Table table, const std::vector<GcraPolicy>& limits, Tally* tally, uint64_t tries) {
  for (uint64_t i = 0; i < tries; ++i) {
    Charge charges[5];
    for (size_t l = 0; l < 5; ++l) {
      charges[l] = {&limits[l], key(l)};
    }
    tally->admitted += charge_all(table, std::span(charges), kNow) == Outcome::admitted ? 1 : 0;
    ++tally->steps;
  }
}

TEST(RaceTest, ProcessesShareATableAndOneKilledAnywhereLeavesItValid) {
  if (kTsan) {
    GTEST_SKIP() << "its 16-byte compare-and-swap is a lock of one process only";
  }
  std::mt19937_64 random(7);
  for (uint64_t round = 0; round < 30 / kScale; ++round) {
    const SharedMemory memory(Table::bytes_for(64));
    const SharedMemory tally_memory(4096);
    auto table = make_table<Table>(memory);
    auto* tally = new (tally_memory.bytes().data()) Tally{};
    std::vector<GcraPolicy> limits(5, policy(20'000, kDay));
    std::vector<pid_t> children;
    for (int i = 0; i < 3; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        be_a_worker(*Table::attach(memory.bytes()), limits, tally, 10'000);
        _exit(0);
      }
      children.push_back(child);
    }
    const uint64_t moment = random() % 15'000;
    while (tally->steps < moment) {
      sched_yield();
    }
    kill(children[0], SIGKILL);
    for (const pid_t child : children) {
      waitpid(child, nullptr, 0);
    }
    // The killed one may have charged once without telling; nothing else may differ.
    for (size_t l = 0; l < 5; ++l) {
      const uint64_t charged = units_charged(table, limits[l], key(l));
      EXPECT_LE(charged, limits[l].burst);
      EXPECT_GE(charged, tally->admitted);
      EXPECT_LE(charged, tally->admitted + 1);
    }
    EXPECT_TRUE(Table::attach(memory.bytes()));
    be_a_worker(table, limits, tally, 30'000);
    EXPECT_GE(tally->admitted, 20'000u - 1);
    EXPECT_LE(tally->admitted, 20'000u);
  }
}

}  // namespace
}  // namespace penstock::limit
