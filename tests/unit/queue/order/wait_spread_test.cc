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
  // Of waits of `eta_ns` that are off by so many scales and their `bias`, one after the other: the
  // part that lay between, of the last half.
  double inside(double eta_ns, double off, double bias) {
    std::mt19937_64 random(7);
    std::normal_distribution<double> normal(bias, off);
    constexpr int kJobs = 8000;
    int within = 0;
    for (int i = 0; i < kJobs; ++i) {
      const WaitSpread::Told told = tell(eta_ns);
      const double waited_ns = std::max(0.0, eta_ns + normal(random) * told.scale_ns);
      const bool between = spread_.soon_ns(told) <= waited_ns && waited_ns <= spread_.late_ns(told);
      within += i >= kJobs / 2 && between ? 1 : 0;
      spread_.came_true(told, waited_ns, now_ns_ += 2 * waited_ns + 1);
    }
    return within / (kJobs / 2.0);
  }
  WaitSpread spread_;
  double now_ns_ = 1;
};

TEST_F(WaitSpreadTest, FourOfFiveAreWithinWhateverTheErrorsAre) {
  for (const double off : {0.3, 1.0, 4.0}) {
    for (const double bias : {-0.5, 0.0, 2.0}) {
      spread_ = {};
      EXPECT_NEAR(inside(3e9, off, bias), 0.8, 0.03) << off << " " << bias;
    }
  }
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
  const WaitSpread::Told told = tell(3e9);
  spread_.came_true(told, 30e9, now_ns_ = 1e12);
  const double once_ns = spread_.late_ns(told);
  for (int i = 0; i < 1000; ++i) {
    spread_.came_true(told, 30e9, now_ns_ += 1);
  }
  EXPECT_NEAR(spread_.late_ns(told), once_ns, 1e3);
}

TEST_F(WaitSpreadTest, WhoIsOvertakenIsLearnedApart) {
  const double before_ns = spread_.late_ns(tell(3e9));
  for (int i = 0; i < 100; ++i) {
    spread_.came_true(tell(3e9, true), 60e9, now_ns_ += 60e9);
  }
  EXPECT_EQ(spread_.late_ns(tell(3e9)), before_ns);
  EXPECT_GT(spread_.late_ns(tell(3e9, true)), 3 * before_ns);
}

TEST_F(WaitSpreadTest, WhereTheJobsChangeLongWaitsAreLessCertain) {
  const WaitSpread::Told before = tell(100e9);
  for (int i = 0; i < 20; ++i) {
    spread_.came_true(tell(100e9), 150e9, now_ns_ += 150e9);
  }
  EXPECT_GT(tell(100e9).scale_ns, 3 * before.scale_ns);
}

TEST_F(WaitSpreadTest, NothingIsLearnedWhereNothingWasTold) {
  spread_.came_true({}, 60e9, 1e12);
  EXPECT_EQ(spread_.late_ns(tell(3e9)), WaitSpread().late_ns(tell(3e9)));
}

}  // namespace
}  // namespace penstock::queue
