#include "worker/queue/order/service_time.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "shared/base/clock.h"

namespace penstock::queue {
namespace {

constexpr int64_t kMs = kNsPerMs;

TEST(ServiceTimeTest, KnowsNothingUntilAJobWasSeen) {
  ServiceTime service;
  EXPECT_FALSE(service.known());
  EXPECT_EQ(service.work_ns(10, 1000), 0);
  service.observe(20 * kMs, 100);
  EXPECT_TRUE(service.known());
  EXPECT_DOUBLE_EQ(service.work_ns(1, 100), 20 * kMs);
}

TEST(ServiceTimeTest, FindsWhatAJobAndWhatAUnitTakes) {
  std::mt19937_64 random(1);
  ServiceTime service;
  for (int i = 0; i < 2000; ++i) {
    const uint64_t cost = 10 + random() % 1000;
    service.observe(static_cast<int64_t>(5 * kMs + cost * kMs / 10), cost);
  }
  EXPECT_NEAR(service.work_ns(1, 10), 6.0 * kMs, 1.0 * kMs);
  EXPECT_NEAR(service.work_ns(1, 1000), 105.0 * kMs, 2.0 * kMs);
  EXPECT_NEAR(service.work_ns(1000, 505'000), 1000 * 55.5 * kMs, 1000.0 * kMs);
}

TEST(ServiceTimeTest, HasNoCliffWhenTheMixChanges) {
  ServiceTime service;
  for (int i = 0; i < 500; ++i) {
    service.observe(50 * kMs, 100);
  }
  EXPECT_DOUBLE_EQ(service.work_ns(1, 100), 50.0 * kMs);
  EXPECT_NEAR(service.work_ns(1, 1000), 275.0 * kMs, 1.0);  // half a job's, half a unit's
  for (int i = 0; i < 50; ++i) {
    service.observe(i % 2 == 0 ? 500 * kMs : 50 * kMs, i % 2 == 0 ? 1000 : 100);
    EXPECT_NEAR(service.work_ns(1, 100), 50.0 * kMs, 5.0 * kMs) << i;
    EXPECT_GT(service.work_ns(1, 1000), 275.0 * kMs) << i;  // closer at once ...
    EXPECT_LT(service.work_ns(1, 1000), 505.0 * kMs) << i;  // ... and never beyond
  }
  EXPECT_NEAR(service.work_ns(1, 1000), 500.0 * kMs, 60.0 * kMs);
  EXPECT_NEAR(service.work_ns(1, 100), 50.0 * kMs, 20.0 * kMs);
}

TEST(ServiceTimeTest, OneOddJobDoesNotSpoilIt) {
  std::mt19937_64 random(2);
  std::lognormal_distribution<double> times(0, 0.5);
  ServiceTime service;
  for (int i = 0; i < 500; ++i) {
    service.observe(static_cast<int64_t>(times(random) * 20 * kMs), 1);
  }
  const double before = service.mean_ns();
  service.observe(3600 * kNsPerSec, 1);
  EXPECT_NEAR(service.mean_ns(), before, 0.05 * before);
}

TEST(ServiceTimeTest, FollowsALastingChangeWithinAHundredJobs) {
  std::mt19937_64 random(3);
  std::lognormal_distribution<double> times(-0.125, 0.5);
  ServiceTime service;
  for (int i = 0; i < 5000; ++i) {
    service.observe(static_cast<int64_t>(times(random) * 20 * kMs), 1);
  }
  EXPECT_NEAR(service.mean_ns(), 20.0 * kMs, 2.0 * kMs);
  for (int i = 0; i < 100; ++i) {
    service.observe(static_cast<int64_t>(times(random) * 60 * kMs), 1);
  }
  EXPECT_NEAR(service.mean_ns(), 60.0 * kMs, 12.0 * kMs);
}

TEST(ServiceTimeTest, WhatRunningJobsStillNeedDependsOnHowTheirTimesSpread) {
  ServiceTime same;
  ServiceTime wild;
  std::mt19937_64 random(4);
  std::exponential_distribution<double> times(1);
  for (int i = 0; i < 3000; ++i) {
    same.observe(100 * kMs, 1);
    wild.observe(static_cast<int64_t>(times(random) * 100 * kMs), 1);
  }
  EXPECT_NEAR(same.left_ns(1, 1, 60.0 * kMs), 40.0 * kMs, 1.0);
  EXPECT_EQ(same.left_ns(1, 1, 500.0 * kMs), 0);
  EXPECT_NEAR(wild.left_ns(1, 1, 60.0 * kMs), wild.mean_ns(), 0.15 * wild.mean_ns());
  EXPECT_NEAR(same.residual_ns(), 50.0 * kMs, 1.0);
}

TEST(ServiceTimeTest, IsCertainAsFarAsCostsSayWhatJobsTake) {
  std::mt19937_64 random(4);
  std::lognormal_distribution<double> takes(0, 0.5);
  ServiceTime always_the_same;
  ServiceTime by_cost;
  ServiceTime by_chance;
  for (int i = 0; i < 2000; ++i) {
    const double time = 1e9 * takes(random);
    always_the_same.observe(1'000'000'000, 7);
    by_cost.observe(static_cast<int64_t>(time), static_cast<uint64_t>(time / 1e6));
    by_chance.observe(static_cast<int64_t>(time), 1 + random() % 1000);
  }
  EXPECT_GT(always_the_same.certainty(), 0.99);
  EXPECT_GT(by_cost.certainty(), 0.95);
  EXPECT_LT(by_chance.certainty(), 0.15);
}

// What is left, on average, of those that have lasted so long: against a simulation.
TEST(ServiceTimeTest, WhatIsLeftOfALongJobIsThatOfTheLongOnes) {
  std::mt19937_64 random(3);
  std::lognormal_distribution<double> takes(0, 0.8);
  ServiceTime service;
  std::vector<double> times;
  for (int i = 0; i < 200'000; ++i) {
    times.push_back(1e9 * takes(random));
    service.observe(static_cast<int64_t>(times.back()), 1);
  }
  for (const double age : {0.0, 0.5e9, 1e9, 2e9, 4e9}) {
    double left = 0;
    double lasted = 0;
    for (const double time : times) {
      left += std::max(0.0, time - age);
      lasted += time > age ? 1 : 0;
    }
    EXPECT_NEAR(service.remaining_ns(1, age) / (left / lasted), 1, 0.25) << age;
  }
}

TEST(ServiceTimeTest, WhatIsLeftIsAFiniteNumberHoweverLongAJobTakes) {
  ServiceTime service;
  for (int i = 0; i < 1000; ++i) {
    service.observe(1'000'000, 1);
  }
  for (int i = 0; i < 67; ++i) {
    const double age = 2e6 * std::pow(1.5, i);  // to 8e17
    const double left = service.remaining_ns(1, age);
    EXPECT_GT(left, 0);
    EXPECT_LT(left, age);
  }
}

TEST(ServiceTimeTest, FourOfFiveRunningJobsAreDoneBetweenTheTenthAndTheNinthTenth) {
  std::mt19937_64 random(3);
  std::lognormal_distribution<double> takes(std::log(1e9) - 0.125, 0.5);
  ServiceTime service;
  for (int i = 0; i < 2000; ++i) {
    service.observe(static_cast<int64_t>(takes(random)), 1);
  }
  for (const double age_ns : {0.0, 0.5e9, 1e9, 2e9}) {
    const double soon_ns = service.done_by_ns(1, age_ns, 0.1);
    const double late_ns = service.done_by_ns(1, age_ns, 0.9);
    EXPECT_GE(soon_ns, age_ns);
    int last = 0;
    int inside = 0;
    for (int i = 0; i < 200'000; ++i) {
      const double took_ns = takes(random);
      last += took_ns > age_ns ? 1 : 0;
      inside += took_ns > age_ns && soon_ns <= took_ns && took_ns <= late_ns ? 1 : 0;
    }
    EXPECT_NEAR(static_cast<double>(inside) / last, 0.8, 0.05) << age_ns;
  }
}

}  // namespace
}  // namespace penstock::queue
