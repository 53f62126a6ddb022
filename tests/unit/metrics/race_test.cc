// Real threads and processes on one registry and one sketch. These run under ThreadSanitizer.

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <random>

#include "shared/metrics/heavy_hitters.h"
#include "shared/metrics/registry.h"
#include "tests/unit/metrics/metrics_fixture.h"

namespace penstock::metrics {
namespace {

using limit::kScale;
using limit::kTsan;

constexpr unsigned kThreads = 4;

TEST(MetricsRaceTest, ThreadsOnOneStripeLoseNoCount) {
  RegistryMemory memory(4, 2);
  Registry registry = memory.registry();
  const uint32_t id = id_of(registry, "a_total");
  const uint64_t rounds = 3'000'000 / kScale;
  in_threads(kThreads, [&](unsigned thread) {
    Registry mine = registry;
    for (uint64_t i = 0; i < rounds; ++i) {
      mine.add(id, thread % 2, 3);
    }
  });
  EXPECT_EQ(registry.sum(id), kThreads * rounds * 3);
}

// What is read while a new configuration is taken over is a whole text with its own count.
TEST(MetricsRaceTest, AReaderSeesOnlyWholeSeriesWhileOthersAreAdded) {
  RegistryMemory memory(2000, 1);
  Registry registry = memory.registry();
  std::atomic<uint64_t> wrong = 0;
  in_threads(2, [&](unsigned thread) {
    Registry mine = registry;
    if (thread == 0) {
      for (uint64_t i = 0; i < 2000 / kScale; ++i) {
        mine.add(id_of(mine, "series_" + std::to_string(i)), 0, i);
      }
      return;
    }
    while (mine.size() < 2000 / kScale) {
      for (uint32_t id = 0; id < mine.size(); ++id) {
        wrong += mine.text_of(id) != "series_" + std::to_string(id) ? 1 : 0;
        const uint64_t sum = mine.sum(id);
        wrong += sum != 0 && sum != id ? 1 : 0;
      }
    }
  });
  EXPECT_EQ(wrong, 0u);
}

struct Tally {
  std::atomic<uint64_t> steps;
};

// What one worker process does: counts in all series in turn, and says how often it has.
void be_a_worker(Registry registry, unsigned stripe, Tally* tally, uint64_t rounds) {
  for (uint64_t i = 0; i < rounds; ++i) {
    for (uint32_t id = 0; id < registry.size(); ++id) {
      registry.add(id, stripe);
    }
    ++tally->steps;
  }
}

TEST(MetricsRaceTest, AProcessKilledAnywhereLosesAtMostTheRoundItWasIn) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 20; ++round) {
    RegistryMemory memory(5, 2);
    const limit::SharedMemory tally_memory(4096);
    auto* tally = new (tally_memory.bytes().data()) Tally{};
    Registry registry = memory.registry();
    for (const char* text : {"a_total", "b_total", "c_total", "d_total", "e_total"}) {
      id_of(registry, text);
    }
    std::vector<pid_t> children;
    for (unsigned worker = 0; worker < 3; ++worker) {
      const pid_t child = fork();
      if (child == 0) {
        be_a_worker(*Registry::attach(memory.bytes()), worker, tally, 20'000);
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
    EXPECT_GE(tally->steps, 40'000u);
    for (uint32_t id = 0; id < 5; ++id) {
      EXPECT_GE(registry.sum(id), tally->steps);
      EXPECT_LE(registry.sum(id), tally->steps + 1);
    }
    EXPECT_TRUE(Registry::attach(memory.bytes()));
  }
}

// Everybody counts the same few keys while single keys rain on all buckets.
TEST(MetricsRaceTest, ThreadsNeverMakeMoreOfAnOffenderThanThereWasAndHardlyLess) {
  const limit::SharedMemory memory(HeavyHitters::bytes());
  HeavyHitters sketch = *HeavyHitters::create(memory.bytes());
  const uint64_t rounds = 100'000 / kScale;
  in_threads(kThreads, [&](unsigned thread) {
    HeavyHitters mine = sketch;
    std::mt19937_64 random(thread);
    for (uint64_t i = 0; i < rounds; ++i) {
      for (uint64_t key = 1; key <= 5; ++key) {
        mine.note(key, static_cast<uint32_t>(key), random());
      }
      mine.note(random(), 0, random());
      if (i % 1000 == 999) {
        Offender top[3];
        mine.top(top);
        EXPECT_GE(top[0].count, top[1].count);
      }
    }
  });
  Offender top[5];
  ASSERT_EQ(sketch.top(top), 5u);
  for (const Offender& offender : top) {
    EXPECT_LE(offender.key, 5u);
    EXPECT_EQ(offender.tag, offender.key);
    EXPECT_LE(offender.count, kThreads * rounds);
    EXPECT_GT(offender.count, kThreads * rounds * 99 / 100);
  }
}

TEST(MetricsRaceTest, ThreadsOnOneKeyLoseNoRefusal) {
  const limit::SharedMemory memory(HeavyHitters::bytes());
  HeavyHitters sketch = *HeavyHitters::create(memory.bytes());
  const uint64_t rounds = 3'000'000 / kScale;
  in_threads(kThreads, [&](unsigned) {
    for (uint64_t i = 0; i < rounds; ++i) {
      HeavyHitters(sketch).note(42, 7, i);
    }
  });
  Offender top[2];
  ASSERT_EQ(sketch.top(top), 1u);
  EXPECT_EQ(top[0].count, kThreads * rounds);
}

// Each round all threads note the same new key at once, and all think that a minute has passed.
TEST(MetricsRaceTest, ANewKeyIsCountedByAllAndHalvedByOne) {
  const limit::SharedMemory memory(HeavyHitters::bytes());
  HeavyHitters sketch = *HeavyHitters::create(memory.bytes());
  const uint64_t rounds = 1'000 / kScale;
  std::atomic<uint64_t> wrong = 0;
  std::atomic<uint64_t> halved = 0;
  std::barrier gate(2);
  sketch.fade(1);
  in_threads(2, [&](unsigned thread) {
    HeavyHitters mine = sketch;
    for (uint64_t round = 1; round <= rounds; ++round) {
      gate.arrive_and_wait();
      mine.note(round, 0, round);
      gate.arrive_and_wait();
      if (thread == 0) {
        Offender top[1];
        wrong += mine.top(top) != 1 || top[0].key != round || top[0].count != 2 ? 1 : 0;
        mine.halve(32);
      }
      gate.arrive_and_wait();
      const auto now = static_cast<int64_t>(1 + round * HeavyHitters::kFadePeriodNs);
      halved += mine.fade(now) ? 1 : 0;
    }
  });
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(halved, rounds);
}

TEST(MetricsRaceTest, AProcessKilledWhileItNotesLeavesASketchThatGoesOn) {
  if (kTsan) {
    GTEST_SKIP() << "its 16-byte compare-and-swap is a lock of one process only";
  }
  for (int round = 0; round < 20; ++round) {
    const limit::SharedMemory memory(HeavyHitters::bytes());
    HeavyHitters sketch = *HeavyHitters::create(memory.bytes());
    const pid_t child = fork();
    if (child == 0) {
      std::mt19937_64 random(static_cast<uint64_t>(round));
      for (HeavyHitters mine = *HeavyHitters::attach(memory.bytes());;) {
        mine.note(random() % 2000, 1, random());
        mine.fade(static_cast<int64_t>(random() >> 2));
      }
    }
    Offender top[1];
    for (int looks = 0; looks < round || sketch.top(top) == 0; ++looks) {
      sched_yield();
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    HeavyHitters after = *HeavyHitters::attach(memory.bytes());
    after.halve(32);
    EXPECT_EQ(after.top(top), 0u);
    for (uint64_t i = 0; i < 1000; ++i) {
      after.note(42, 7, i);
    }
    ASSERT_EQ(after.top(top), 1u);
    EXPECT_EQ(top[0].count, 1000u);
  }
}

}  // namespace
}  // namespace penstock::metrics
