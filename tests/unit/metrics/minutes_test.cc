#include "shared/metrics/minutes.h"

#include "tests/unit/metrics/metrics_fixture.h"

namespace penstock::metrics {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kMinute = Minutes::kMinuteNs;
constexpr int64_t kStart = 100 * kMinute;

class MinutesTest : public ::testing::Test {
 protected:
  // As Nginx counts: the row first.
  void count(int64_t now_ns, uint64_t amount = 1) {
    if (minutes_.begins(now_ns)) {
      minutes_.write(now_ns, {counter_});
    }
    counter_ += amount;
  }
  uint64_t counted(int64_t now_ns) const { return minutes_.recent(now_ns, {counter_}).counted[0]; }
  int64_t seconds(int64_t now_ns) const { return minutes_.recent(now_ns, {counter_}).ns / kSecond; }

  limit::SharedMemory memory_{Minutes::bytes()};
  Minutes minutes_ = *Minutes::create(memory_.bytes());
  uint64_t counter_ = 1000;
};

TEST_F(MinutesTest, WhatIsOlderThanTenMinutesIsForgotten) {
  count(kStart, 7);
  for (int i = 1; i <= 30; ++i) {
    count(kStart + i * kMinute, 2);
  }
  EXPECT_EQ(counted(kStart + 30 * kMinute + 5 * kSecond), 11 * 2U);
  EXPECT_EQ(seconds(kStart + 30 * kMinute + 5 * kSecond), 605);
}

TEST_F(MinutesTest, AtFirstItReachesBackToTheFirstRow) {
  EXPECT_EQ(counted(kStart), 0U);
  EXPECT_EQ(seconds(kStart), 0);
  count(kStart + kSecond, 3);
  EXPECT_EQ(counted(kStart + 90 * kSecond), 3U);
  EXPECT_EQ(seconds(kStart + 90 * kSecond), 90);
}

TEST_F(MinutesTest, AMinuteWithoutACountNeedsNoRow) {
  count(kStart, 5);
  count(kStart + 8 * kMinute, 2);
  EXPECT_EQ(counted(kStart + 10 * kMinute), 7U);
  EXPECT_EQ(counted(kStart + 11 * kMinute), 2U);
  EXPECT_EQ(counted(kStart + 19 * kMinute), 0U);
  EXPECT_EQ(counted(kStart + 500 * kMinute), 0U);
  count(kStart + 500 * kMinute, 1);
  EXPECT_EQ(counted(kStart + 500 * kMinute), 1U);
}

TEST_F(MinutesTest, OneOfSeveralWritesARow) {
  Minutes other = *Minutes::attach(memory_.bytes());
  EXPECT_TRUE(minutes_.begins(kStart));
  EXPECT_FALSE(other.begins(kStart));
  EXPECT_FALSE(minutes_.begins(kStart + 59 * kSecond));
  EXPECT_TRUE(other.begins(kStart + 60 * kSecond));
  EXPECT_FALSE(minutes_.begins(kStart));  // it has seen the clock a little earlier
}

TEST_F(MinutesTest, ACounterThatFellBeganAnew) {
  count(kStart);
  counter_ = 4;
  EXPECT_EQ(counted(kStart + kSecond), 4U);
}

TEST_F(MinutesTest, AViewOfNothingKnowsNothing) {
  Minutes none;
  EXPECT_FALSE(none.begins(kStart));
  EXPECT_EQ(none.recent(kStart, {1}).ns, 0);
}

}  // namespace
}  // namespace penstock::metrics
