#include "shared/challenge/load.h"

#include <gtest/gtest.h>

namespace penstock::challenge {
namespace {

TEST(LoadTest, AFewAddNothing) {
  Load load;
  for (int64_t s = 0; s < 600; ++s) {
    EXPECT_EQ(load.extra(static_cast<uint64_t>(s), s), 0);  // one a second
  }
}

TEST(LoadTest, EachDoublingAddsALevelAtOnce) {
  Load load;
  EXPECT_EQ(load.extra(0, 0), 0);
  EXPECT_EQ(load.extra(119, 5), 0);
  EXPECT_EQ(load.extra(120, 6), 1);
  EXPECT_EQ(load.extra(239, 7), 1);
  EXPECT_EQ(load.extra(240, 8), 2);
  EXPECT_EQ(load.extra(480, 9), 3);
}

TEST(LoadTest, ItFallsByOneAMinute) {
  Load load;
  load.extra(0, 0);
  EXPECT_EQ(load.extra(480, 10), 3);
  EXPECT_EQ(load.extra(480, 69), 3);
  EXPECT_EQ(load.extra(480, 70), 2);
  EXPECT_EQ(load.extra(480, 130), 1);
  EXPECT_EQ(load.extra(480, 190), 0);
}

TEST(LoadTest, WhatIsUsualIsLearned) {
  Load load;
  uint64_t solved = 0;
  int64_t s = 0;
  for (; s < 6 * 3600; s += 60) {
    load.extra(solved += 600, s);
  }
  EXPECT_EQ(load.extra(solved, s), 0);
  EXPECT_EQ(load.extra(solved += 1300, s + 30), 1);
}

TEST(LoadTest, AClockThatStepsBackHarmsNothing) {
  Load load;
  load.extra(0, 1000);
  EXPECT_EQ(load.extra(480, 1001), 3);
  EXPECT_EQ(load.extra(480, 10), 3);
  EXPECT_EQ(load.extra(480, 1300), 0);
}

TEST(BudgetTest, SoManyASecond) {
  Budget budget;
  for (int64_t i = 0; i < Budget::kPerSecond; ++i) {
    EXPECT_TRUE(budget.take(5000));
  }
  EXPECT_FALSE(budget.take(5999));
  EXPECT_TRUE(budget.take(6000));
}

}  // namespace
}  // namespace penstock::challenge
