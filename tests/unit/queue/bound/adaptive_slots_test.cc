#include "worker/queue/bound/adaptive_slots.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/queue/bound/simulated_device.h"

namespace penstock::queue {
namespace {

constexpr double kStepNs = 20e6;
constexpr uint32_t kMost = 1024;

// As long as they fit, jobs run side by side at no cost; then they share what there is.
auto roofline(uint32_t knee, double step_ns = kStepNs) {
  return [=](uint32_t running) {
    return step_ns * std::max(1.0, static_cast<double>(running) / knee);
  };
}

void settle(AdaptiveSlots& slots, SimulatedDevice& device) {
  const uint64_t from = device.ended;
  while (!slots.resting() && device.ended - from < 3'000'000) {
    device.run_jobs(1);
  }
  ASSERT_TRUE(slots.resting());
}

class AdaptiveSlotsKneeTest : public testing::TestWithParam<std::tuple<uint32_t, Sizes, bool>> {};

TEST_P(AdaptiveSlotsKneeTest, EndsAtTheKnee) {
  const auto [knee, sizes, size_is_work] = GetParam();
  AdaptiveSlots slots(kMost);
  SimulatedDevice device(slots);
  device.random.seed(knee);
  device.takes_ns = roofline(knee);
  device.sizes = sizes;
  device.size_is_work = size_is_work;
  settle(slots, device);
  device.reset();
  device.run_jobs(200'000);
  const double off = std::max(0.2 * knee, 0.3);
  EXPECT_NEAR(device.mean_limit(), knee, off) << slots.say();
  EXPECT_GT(device.work_per_ns(), 0.95 * knee / kStepNs) << slots.say();
}

INSTANTIATE_TEST_SUITE_P(Rooflines, AdaptiveSlotsKneeTest,
                         testing::Combine(testing::Values(1, 2, 3, 5, 8, 11, 23, 45, 90, 180, 256),
                                          testing::Values(Sizes::kConstant, Sizes::kLogNormal,
                                                          Sizes::kExponential),
                                          testing::Bool()));

// Jobs of 5 minutes that all take the same: an answer after tens of them, not thousands.
TEST(AdaptiveSlotsTest, FindsTheKneeOfSlowJobsWithinAFewRounds) {
  AdaptiveSlots slots(64);
  SimulatedDevice device(slots);
  device.takes_ns = roofline(8, 300e9);
  device.sizes = Sizes::kConstant;
  device.run_for(static_cast<int64_t>(60 * 300e9));
  EXPECT_NEAR(slots.settled(), 8, 1) << slots.say();
}

TEST(AdaptiveSlotsTest, ReachesTheBoundWhenMoreAlwaysBringsMore) {
  for (const uint32_t most : {1U, 2U, 7U, 100U, 300U}) {
    AdaptiveSlots slots(most);
    SimulatedDevice device(slots);
    device.takes_ns = [](uint32_t) { return kStepNs; };
    settle(slots, device);
    device.run_jobs(10);
    EXPECT_EQ(slots.settled(), most) << slots.say();
    EXPECT_EQ(device.most_running, most);
  }
}

TEST(AdaptiveSlotsTest, StaysBelowWhereADeviceThrashes) {
  AdaptiveSlots slots(kMost);
  SimulatedDevice device(slots);
  device.takes_ns = [](uint32_t running) {
    return kStepNs * (running <= 24 ? 1 : std::pow(running / 24.0, 4));
  };
  settle(slots, device);
  EXPECT_LE(device.most_running, 64U);
  device.reset();
  device.run_jobs(200'000);
  EXPECT_NEAR(device.mean_limit(), 23, 3);
  EXPECT_GT(device.work_per_ns(), 0.88 * 24 / kStepNs);
}

// 16 slots and it stands nearly still: the trial is given up, long before its jobs have ended.
TEST(AdaptiveSlotsTest, GivesUpATrialThatStalls) {
  AdaptiveSlots slots(kMost);
  SimulatedDevice device(slots);
  device.takes_ns = [](uint32_t running) { return running < 16 ? kStepNs : 1e6 * kStepNs; };
  device.run_for(60 * kNsPerSec);
  EXPECT_LT(slots.settled(), 16U);
  EXPECT_LT(slots.limit(), 16U);
  EXPECT_EQ(slots.why().because, AdaptiveSlots::Because::kStalled) << slots.say();
}

// With 8 slots a job takes as long when the knee moves to 32: only trying tells.
void follow(Sizes sizes, bool size_is_work, double rounds) {
  AdaptiveSlots slots(kMost);
  SimulatedDevice device(slots);
  device.sizes = sizes;
  device.size_is_work = size_is_work;
  for (const uint32_t knee : {8U, 32U, 4U}) {
    device.takes_ns = roofline(knee);
    device.run_for(static_cast<int64_t>(rounds * kStepNs));
    device.reset();
    device.run_jobs(50'000);
    EXPECT_NEAR(device.mean_limit(), knee, 0.2 * knee + 0.2) << slots.say();
  }
}

TEST(AdaptiveSlotsTest, FollowsWhenTheKneeMoves) {
  follow(Sizes::kConstant, false, 1000);
  follow(Sizes::kExponential, true, 1000);  // the work is known: tokens
  follow(Sizes::kLogNormal, false, 20'000);
}

TEST(AdaptiveSlotsTest, LooksAgainAtOnceWhenJobsComeToTakeAnotherTime) {
  AdaptiveSlots slots(kMost);
  SimulatedDevice device(slots);
  device.takes_ns = roofline(32);
  settle(slots, device);
  for (int i = 0; i < 10; ++i) {
    device.run_jobs(20'000);
  }
  settle(slots, device);
  device.takes_ns = roofline(4);
  device.run_jobs(800);
  EXPECT_FALSE(slots.resting()) << slots.say();
  device.run_jobs(3'000);
  EXPECT_LT(slots.settled(), 12U) << slots.say();
}

TEST(AdaptiveSlotsTest, TriesSeldomOnceTheAnswerIsStable) {
  AdaptiveSlots slots(kMost);
  SimulatedDevice device(slots);
  device.takes_ns = roofline(16);
  device.sizes = Sizes::kConstant;
  settle(slots, device);
  device.run_jobs(100'000);
  uint64_t resting = 0;
  for (int i = 0; i < 50'000; ++i) {
    device.run_jobs(1);
    resting += slots.resting() && slots.limit() == slots.settled() ? 1 : 0;
    EXPECT_EQ(slots.settled(), 16U);
  }
  EXPECT_GT(resting, 42'000U);
}

TEST(AdaptiveSlotsTest, ALoadThatComesAndGoesMovesNothing) {
  AdaptiveSlots slots(kMost);
  SimulatedDevice device(slots);
  device.takes_ns = roofline(16);
  settle(slots, device);
  const uint32_t before = slots.settled();
  EXPECT_NEAR(before, 16, 3);
  std::poisson_distribution<uint64_t> burst(30);
  for (int i = 0; i < 20'000; ++i) {
    device.waiting = burst(device.random);
    device.run_for(100 * kNsPerMs);
    EXPECT_EQ(slots.settled(), before) << slots.say();
  }
  device.waiting = 0;
  device.run_for(86'400 * kNsPerSec);
  EXPECT_EQ(slots.settled(), before);
  EXPECT_EQ(slots.limit(), before);
}

// Sometimes all slots are busy, and most of the time they are not: what is seen then is what comes,
// not what the device can do.
TEST(AdaptiveSlotsTest, ALightLoadMovesNothing) {
  for (const double load : {0.3, 0.6, 0.8}) {
    AdaptiveSlots slots(kMost);
    SimulatedDevice device(slots);
    device.takes_ns = roofline(16);
    device.sizes = Sizes::kConstant;
    settle(slots, device);
    ASSERT_EQ(slots.settled(), 16U);
    std::exponential_distribution<double> gap(load * 16 / kStepNs);
    device.waiting = 0;
    for (int i = 0; i < 300'000; ++i) {
      device.waiting += 1;
      device.run_for(1 + static_cast<int64_t>(gap(device.random)));
      ASSERT_EQ(slots.settled(), 16U) << slots.say();
    }
  }
}

TEST(AdaptiveSlotsTest, StaysBelowWhereJobsFail) {
  AdaptiveSlots slots(kMost);
  SimulatedDevice device(slots);
  device.takes_ns = [](uint32_t) { return kStepNs; };
  std::bernoulli_distribution out_of_memory(0.2);
  uint64_t failed = 0;
  device.fails = [&](uint32_t running) {
    const bool fails = running > 12 && out_of_memory(device.random);
    failed += fails ? 1 : 0;
    return fails;
  };
  device.run_for(static_cast<int64_t>(5000 * kStepNs));
  failed = 0;
  device.reset();
  const uint64_t before = device.ended;
  device.run_jobs(200'000);
  EXPECT_LT(failed, (device.ended - before) / 500);
  EXPECT_NEAR(device.mean_limit(), 11.5, 1.5) << slots.say();
}

TEST(AdaptiveSlotsTest, StepsDownAtOnceWhenJobsBeginToFail) {
  AdaptiveSlots slots(16);
  SimulatedDevice device(slots);
  device.takes_ns = [](uint32_t) { return kStepNs; };
  settle(slots, device);
  ASSERT_EQ(slots.settled(), 16U);
  device.fails = [](uint32_t running) { return running > 9; };  // jobs are bigger now
  device.run_jobs(60);
  EXPECT_LE(slots.settled(), 9U) << slots.say();
}

// A worker that runs out of memory takes all its jobs with it: that is one reason to step down, not
// one for each job.
TEST(AdaptiveSlotsTest, JobsThatBeganBeforeTheStepDownDoNotCallForAnother) {
  AdaptiveSlots slots(64, 64);
  int64_t now = 0;
  for (uint32_t i = 1; i <= 64; ++i) {
    slots.started(now, i);
  }
  now += kNsPerSec;
  for (uint32_t i = 64; i-- > 0;) {
    slots.ended(now, i, {.began_ns = 0, .end = AdaptiveSlots::End::kFailed});
  }
  EXPECT_EQ(slots.settled(), 45U) << slots.say();
}

// Jobs that fail whatever the limit is: after a step or two it is known.
TEST(AdaptiveSlotsTest, FailuresThatHaveNothingToDoWithItAreGotUsedTo) {
  AdaptiveSlots slots(kMost);
  SimulatedDevice device(slots);
  device.takes_ns = roofline(16);
  std::bernoulli_distribution bad(0.1);
  device.fails = [&](uint32_t) { return bad(device.random); };
  device.run_jobs(100'000);
  device.reset();
  device.run_jobs(200'000);
  EXPECT_NEAR(device.mean_limit(), 16, 3.2) << slots.say();
}

// Whatever is told to it, in whatever order.
TEST(AdaptiveSlotsTest, NoSequenceOfEventsBringsItPastItsBounds) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    uint32_t most = 1 + random() % 40;
    AdaptiveSlots slots(most, random() % 50);
    int64_t now = 0;
    uint32_t running = 0;
    for (int i = 0; i < 5000; ++i) {
      now += static_cast<int64_t>(random() % (i % 7 == 0 ? 1'000'000'000 : 3'000'000));
      switch (random() % 8) {
        case 0:
          slots.advance_to(now);
          break;
        case 1:
          if (random() % 50 == 0) {
            slots.allow(most = random() % 60, now);
            most = std::max(most, 1U);
          }
          break;
        case 2:
        case 3:
        case 4:
          while (running < slots.limit()) {
            slots.started(now, ++running);
          }
          break;
        default:
          if (running > 0) {
            slots.ended(now, --running,
                        {.began_ns = now - static_cast<int64_t>(random() % 50'000'000),
                         .work = static_cast<double>(random() % 3),
                         .end = static_cast<AdaptiveSlots::End>(random() % 3)});
          }
      }
      ASSERT_GE(slots.limit(), 1U);
      ASSERT_LE(slots.limit(), most);
      ASSERT_GE(slots.settled(), 1U);
      ASSERT_LE(slots.settled(), most);
      ASSERT_GT(slots.say().size(), 5U);
    }
  }
}

TEST(AdaptiveSlotsTest, ATighterBoundHoldsAtOnceAndAWiderOneIsUsed) {
  AdaptiveSlots slots(64);
  SimulatedDevice device(slots);
  device.takes_ns = [](uint32_t) { return kStepNs; };
  settle(slots, device);
  ASSERT_EQ(slots.limit(), 64U);
  slots.allow(10, device.now());
  EXPECT_EQ(slots.limit(), 10U);
  slots.allow(200, device.now());
  settle(slots, device);
  EXPECT_EQ(slots.settled(), 200U);
}

TEST(AdaptiveSlotsTest, SaysWhyInWords) {
  EXPECT_EQ(AdaptiveSlots(1).say(), "1 slot: the bound");
  AdaptiveSlots slots(2);
  EXPECT_EQ(slots.say(), "1 slot: nothing compared yet");
  SimulatedDevice device(slots);
  device.takes_ns = roofline(1);
  device.sizes = Sizes::kConstant;
  settle(slots, device);
  EXPECT_EQ(slots.say().substr(0, 37), "1 slot: 100 % more would bring 0.0 % ") << slots.say();
  EXPECT_NE(slots.say().find("a job took 100 % longer"), std::string::npos) << slots.say();
  EXPECT_NEAR(slots.why().time_more, 1, 0.001);
}

}  // namespace
}  // namespace penstock::queue
