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
  const Policy limit = policy(burst, 31 * kDay);
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
  std::vector<Policy> limits;
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
      if (charge_all(table, std::span(charges), at(kNow)) != Outcome::admitted) {
        continue;
      }
      if (random() % 2 == 0) {
        refund_all(table, std::span<const Charge>(charges), at(kNow));
        continue;
      }
      for (size_t c = 0; c < charges.size(); ++c) {
        charged[which[c]] += charges[c].cost;
      }
    }
  });
  for (size_t l = 0; l < limits.size(); ++l) {
    EXPECT_EQ(units_charged(table, limits[l], key(l)), charged[l]);
    EXPECT_LE(charged[l], limits[l].limit);
    EXPECT_GT(charged[l], limits[l].limit / 10);
  }
}

// Each round all threads insert the same new key while others' keys come and go around it.
TEST(RaceTest, AKeyInsertedByAllAtOnceIsAdmittedExactlyItsBurst) {
  const SharedMemory memory(Table::bytes_for(64));
  auto table = make_table<Table>(memory);
  const Policy brief = policy(10'000'000, kSecond, 1);
  const Policy limit = policy(2, kSecond, 2);
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
void be_a_worker(Table table, const std::vector<Policy>& limits, Tally* tally, uint64_t tries) {
  for (uint64_t i = 0; i < tries; ++i) {
    Charge charges[5];
    for (size_t l = 0; l < 5; ++l) {
      charges[l] = {&limits[l], key(l)};
    }
    tally->admitted += charge_all(table, std::span(charges), at(kNow)) == Outcome::admitted ? 1 : 0;
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
    std::vector<Policy> limits(5, policy(20'000, kDay));
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
      EXPECT_LE(charged, limits[l].limit);
      EXPECT_GE(charged, tally->admitted);
      EXPECT_LE(charged, tally->admitted + 1);
    }
    EXPECT_TRUE(Table::attach(memory.bytes()));
    be_a_worker(table, limits, tally, 30'000);
    EXPECT_GE(tally->admitted, 20'000u - 1);
    EXPECT_LE(tally->admitted, 20'000u);
  }
}

// One limit of each algorithm, with a key of its own.
std::vector<Policy> one_of_each(uint64_t units) {
  return {policy(units, kDay), fixed_window(units, Span::day), sliding_window(units, Span::day),
          concurrency(units), sliding_log(units, kDay)};
}

// A random part of the limits in a random order, one or two units of each.
std::vector<Charge> some_of(const std::vector<Policy>& limits, std::mt19937_64& random) {
  std::vector<Charge> charges;
  for (size_t l = 0; l < limits.size(); ++l) {
    if (random() % 2 == 0) {
      charges.push_back({&limits[l], key(l), 1 + random() % 2});
    }
  }
  std::shuffle(charges.begin(), charges.end(), random);
  return charges;
}

TEST(RaceTest, LimitsOfEveryAlgorithmHoldExactlyWhatWasAdmittedDespiteRollBacks) {
  const SharedMemory memory(Table::bytes_for(512));
  auto table = make_table<Table>(memory);
  const std::vector<Policy> limits = one_of_each(40);
  std::vector<std::atomic<uint64_t>> charged(limits.size());
  std::atomic<uint64_t> over = 0;
  in_threads([&](unsigned thread) {
    std::mt19937_64 random(thread);
    std::vector<std::vector<Charge>> held;
    for (uint64_t i = 0; i < 40'000 / kScale; ++i) {
      std::vector<Charge> charges = some_of(limits, random);
      if (charge_all(table, std::span(charges), at(kNow)) == Outcome::admitted) {
        for (const Charge& charge : charges) {
          const auto limit = static_cast<size_t>(charge.policy - limits.data());
          over += (charged[limit] += charge.cost) > limits[limit].limit ? 1 : 0;
        }
        held.push_back(std::move(charges));
      }
      if (held.size() > 3 || (!held.empty() && random() % 3 == 0)) {
        for (const Charge& charge : held.back()) {  // told before it is done: never counted short
          charged[static_cast<size_t>(charge.policy - limits.data())] -= charge.cost;
        }
        refund_all(table, std::span<const Charge>(held.back()), at(kNow));
        held.pop_back();
      }
    }
  });
  EXPECT_EQ(over, 0u);
  for (size_t l = 0; l < limits.size(); ++l) {
    EXPECT_EQ(units_used(table, limits[l], key(l)), charged[l]) << l;
  }
}

// Clocks go on, each thread with a reading of its own, some of them late; by less than kClockSkewNs
// even where a thread does not run for long, as all of it takes less. Afterwards all that was
// admitted, in the order of those readings, must be what the limits allow.
TEST(RaceTest, OverTimeNoLimitOfAnyAlgorithmAdmitsMoreThanItSays) {
  const SharedMemory memory(Table::bytes_for(512));
  auto table = make_table<Table>(memory);
  const uint64_t most = 20;
  constexpr uint64_t kTries = 40'000 / kScale;
  constexpr int64_t kStep = 9'000'000'000 / (kTries * kThreads);
  const std::vector<Policy> limits = {policy(most, kSecond), fixed_window(most, Span::second),
                                      sliding_window(most, Span::second), concurrency(most),
                                      sliding_log(most, kSecond)};
  std::atomic<int64_t> clock = kNow;
  std::vector<std::vector<std::vector<int64_t>>> admitted(
      kThreads, std::vector<std::vector<int64_t>>(limits.size()));
  in_threads([&](unsigned thread) {
    std::mt19937_64 random(thread);
    for (uint64_t i = 0; i < kTries; ++i) {
      const int64_t now = clock.fetch_add(kStep) - static_cast<int64_t>(random() % kStep);
      const size_t l = random() % limits.size();
      if (charge_one(table, limits[l], key(l), now) == Outcome::admitted) {
        admitted[thread][l].push_back(now);
      }
    }
  });
  const auto second = static_cast<int64_t>(kSecond);
  for (size_t l = 0; l < limits.size(); ++l) {
    std::vector<int64_t> all;
    for (const auto& of_thread : admitted) {
      all.insert(all.end(), of_thread[l].begin(), of_thread[l].end());
    }
    std::sort(all.begin(), all.end());
    ASSERT_GE(all.size(), most);
    uint64_t state = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      switch (limits[l].algorithm) {
        case Algorithm::fixed_window:
          EXPECT_TRUE(i < most || all[i] / second > all[i - most] / second);
          break;
        case Algorithm::concurrency:  // nobody renews: each lapses within ten seconds
          EXPECT_TRUE(i < most || all[i] / kLeaseNs > all[i - most] / kLeaseNs + 1);
          break;
        case Algorithm::sliding_log:
          EXPECT_TRUE(i < most || all[i] - all[i - most] >= second);
          break;
        default:
          const Decision decision = decide(limits[l], state, at(all[i]), 1);
          EXPECT_TRUE(decision.admit) << l;
          state = decision.next_state;
      }
    }
  }
}

struct Net {
  std::atomic<int64_t> units[5];  // charged and not given back, as told
};

// Charges one unit of each of the five, now and then two requests' worth, and gives it back.
void come_and_go(Table table, const std::vector<Policy>& limits, Net* net,
                 std::atomic<uint64_t>* steps, uint64_t tries, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (uint64_t i = 0; i < tries; ++i) {
    std::vector<Charge> charges = some_of(limits, random);
    for (Charge& charge : charges) {
      charge.cost = 1;
    }
    if (charge_all(table, std::span(charges), at(kNow)) == Outcome::admitted) {
      for (const Charge& charge : charges) {
        ++net->units[charge.policy - limits.data()];
      }
      if (random() % 4 != 0) {
        refund_all(table, std::span<const Charge>(charges), at(kNow));
        for (const Charge& charge : charges) {
          --net->units[charge.policy - limits.data()];
        }
      }
    }
    ++*steps;
  }
}

TEST(RaceTest, AProcessKilledAnywhereUnderAnyAlgorithmLosesNoMoreThanItsOneRequest) {
  if (kTsan) {
    GTEST_SKIP() << "its 16-byte compare-and-swap is a lock of one process only";
  }
  std::mt19937_64 random(8);
  const std::vector<Policy> limits = one_of_each(300);
  for (uint64_t round = 0; round < 20 / kScale; ++round) {
    const SharedMemory memory(Table::bytes_for(1024));
    const SharedMemory tally_memory(4096);
    auto table = make_table<Table>(memory);
    auto* net = new (tally_memory.bytes().data()) Net{};
    auto* steps = new (tally_memory.bytes().data() + 1024) std::atomic<uint64_t>{};
    std::vector<pid_t> children;
    for (uint64_t i = 0; i < 3; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        come_and_go(*Table::attach(memory.bytes()), limits, net, steps, 1'500, round * 3 + i);
        _exit(0);
      }
      children.push_back(child);
    }
    const uint64_t moment = random() % 2'000;
    while (*steps < moment) {
      sched_yield();
    }
    kill(children[0], SIGKILL);
    for (const pid_t child : children) {
      waitpid(child, nullptr, 0);
    }
    for (size_t l = 0; l < limits.size(); ++l) {
      const auto left = static_cast<int64_t>(units_used(table, limits[l], key(l)));
      EXPECT_LE(left, static_cast<int64_t>(limits[l].limit));
      EXPECT_LE(std::abs(left - net->units[l]), 1) << "limit " << l;
      while (charge_one(table, limits[l], key(l)) == Outcome::admitted) {
      }
      EXPECT_EQ(units_used(table, limits[l], key(l)), limits[l].limit);
    }
  }
}

}  // namespace
}  // namespace penstock::limit
