#include "worker/queue/order/wait_spread.h"

#include <gtest/gtest.h>

#include <random>

namespace penstock::queue {
namespace {

constexpr double kMeanNs = 1e9;

class WaitSpreadTest : public testing::Test {
 protected:
  WaitSpread::Told tell(double eta_ns, bool last = false) const {
    return spread_.tell(eta_ns, kMeanNs, 0.25, 512, 4, last);
  }
  bool within(const WaitSpread::Told& told, double waited_ns) const {
    return spread_.soon_ns(told) <= waited_ns && waited_ns <= spread_.late_ns(told);
  }
  // One job alone is told that, and starts after so long. Whether it was within.
  bool wait(double eta_ns, double waited_ns, bool last = false) {
    const WaitSpread::Told told = tell(eta_ns, last);
    const bool inside = within(told, waited_ns);
    spread_.started();
    spread_.came_true(told, waited_ns);
    return inside;
  }
  // Of waits that are off by so many of the scales there were at first, and their `bias`: the part
  // that lay between, of the last half.
  double inside(double eta_ns, double off, double bias, int jobs = 8000) {
    const double scale_ns = WaitSpread().tell(eta_ns, kMeanNs, 0.25, 512, 4, false).known_ns;
    std::normal_distribution<double> normal(bias, off);
    int count = 0;
    for (int i = 0; i < jobs; ++i) {
      const bool between = wait(eta_ns, std::max(0.0, eta_ns + normal(random_) * scale_ns));
      count += i >= jobs / 2 && between ? 1 : 0;
    }
    return count / (jobs / 2.0);
  }
  std::mt19937_64 random_{7};
  WaitSpread spread_;
};

TEST_F(WaitSpreadTest, FourOfFiveAreWithinWhateverTheErrorsAre) {
  for (const double eta_ns : {0.5e9, 3e9, 100e9}) {
    for (const double off : {0.3, 1.0, 4.0}) {
      for (const double bias : {-0.5, 0.0, 2.0}) {
        spread_ = {};
        EXPECT_NEAR(inside(eta_ns, off, bias), 0.8, 0.03) << eta_ns << " " << off << " " << bias;
      }
    }
  }
}

TEST_F(WaitSpreadTest, FourOfFiveAreWithinAgainOnceTheWorldHasChanged) {
  for (const double eta_ns : {3e9, 100e9}) {
    spread_ = {};
    inside(eta_ns, 1, 0);
    EXPECT_NEAR(inside(eta_ns, 4, 1, 2000), 0.8, 0.04) << eta_ns << ": worse";
    EXPECT_NEAR(inside(eta_ns, 0.5, -0.5, 4000), 0.8, 0.04) << eta_ns << ": better";
  }
}

TEST_F(WaitSpreadTest, OnBothSidesAsManyAreBeyond) {
  int sooner = 0;
  int later = 0;
  std::bernoulli_distribution eighth(0.125);
  std::normal_distribution<double> normal(100e9, 5e9);
  constexpr int kJobs = 8000;
  for (int i = 0; i < kJobs; ++i) {
    const double waited_ns = eighth(random_) ? 55e9 : normal(random_);
    const WaitSpread::Told told = tell(100e9);
    const bool counts = i >= kJobs / 2;
    sooner += counts && waited_ns < spread_.soon_ns(told) ? 1 : 0;
    later += counts && waited_ns > spread_.late_ns(told) ? 1 : 0;
    wait(100e9, waited_ns);
  }
  EXPECT_NEAR(sooner / (kJobs / 2.0), 0.1, 0.03);
  EXPECT_NEAR(later / (kJobs / 2.0), 0.1, 0.03);
}

TEST_F(WaitSpreadTest, ARangeIsWiderForWhatIsFurtherAway) {
  double last_ns = 0;
  for (const double eta_ns : {0.0, 1e9, 10e9, 100e9}) {
    const WaitSpread::Told told = tell(eta_ns);
    EXPECT_LE(spread_.soon_ns(told), eta_ns);
    EXPECT_GT(spread_.late_ns(told) - eta_ns, last_ns);
    last_ns = spread_.late_ns(told) - eta_ns;
  }
  EXPECT_NEAR(last_ns, 1.28e9 * std::sqrt(0.25 * 401 / 16 + 0.25 * 1e4 / 1023), 1e8);
}

TEST_F(WaitSpreadTest, JobsThatWaitedTogetherAreOneError) {
  constexpr int kJobs = 1000;
  const WaitSpread::Told told = tell(3e9);
  wait(3e9, 30e9);
  const double once_ns = spread_.late_ns(told);
  const WaitSpread::Told together = tell(3e9);
  for (int i = 0; i < kJobs; ++i) {
    spread_.started();
  }
  for (int i = 0; i < kJobs; ++i) {  // of them, only some were told
    spread_.came_true(together, 30e9);
  }
  const double twice_ns = spread_.late_ns(told);
  wait(3e9, 30e9);
  EXPECT_GT(twice_ns, once_ns);
  EXPECT_LT(twice_ns - once_ns, spread_.late_ns(told) - twice_ns) << "one error, and no more";
}

TEST_F(WaitSpreadTest, WhoIsOvertakenIsLearnedApart) {
  const double before_ns = spread_.late_ns(tell(3e9));
  for (int i = 0; i < 100; ++i) {
    wait(3e9, 60e9, true);
  }
  EXPECT_EQ(spread_.late_ns(tell(3e9)), before_ns);
  EXPECT_GT(spread_.late_ns(tell(3e9, true)), 3 * before_ns);
}

TEST_F(WaitSpreadTest, WhereTheJobsChangeLongWaitsAreLessCertainOnThatSide) {
  const WaitSpread::Told before = tell(100e9);
  for (int i = 0; i < 20; ++i) {
    wait(100e9, 150e9);
  }
  EXPECT_GT(tell(100e9).late_scale_ns, 3 * before.late_scale_ns);
  EXPECT_EQ(tell(100e9).soon_scale_ns, before.soon_scale_ns);
}

TEST_F(WaitSpreadTest, WhatChanceDidToShortWaitsWidensNoLongOne) {
  const WaitSpread::Told before = tell(1000e9);
  std::normal_distribution<double> normal(0, 1);
  for (int i = 0; i < 10000; ++i) {
    wait(20e9, std::max(0.0, 20e9 + normal(random_) * tell(20e9).known_ns));
  }
  EXPECT_LT(tell(1000e9).soon_scale_ns, 1.1 * before.soon_scale_ns);
  EXPECT_LT(tell(1000e9).late_scale_ns, 1.1 * before.late_scale_ns);
}

TEST_F(WaitSpreadTest, NothingRunsAwayAndItComesBack) {
  for (int i = 0; i < 100'000; ++i) {
    wait(100e9, i % 2 == 0 ? 0 : 1e18);
  }
  const WaitSpread::Told told = tell(100e9);
  EXPECT_LT(spread_.soon_ns(told), 0.1 * told.eta_ns);
  EXPECT_LT(spread_.late_ns(told), 1e6 * told.eta_ns);
  EXPECT_NEAR(inside(100e9, 1, 0, 20'000), 0.8, 0.04);
}

TEST_F(WaitSpreadTest, NothingIsLearnedWhereNothingWasToldOrNothingCameTrue) {
  tell(3e9);  // it was cancelled
  spread_.started();
  spread_.came_true({}, 60e9);
  EXPECT_EQ(spread_.late_ns(tell(3e9)), WaitSpread().late_ns(tell(3e9)));
}

TEST(WaitSpreadSizeTest, ItIsTheSameSizeWhateverItHasLearned) {
  EXPECT_LE(sizeof(WaitSpread), 512u);
}

}  // namespace
}  // namespace penstock::queue
