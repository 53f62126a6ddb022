#include "worker/queue/clock/awake_clock.h"

#include <gtest/gtest.h>

namespace penstock::queue {
namespace {

int64_t real_now_ns = 0;

TEST(AwakeClockTest, WhatComesMoreThanASecondLateIsLeftOut) {
  real_now_ns = 100 * kNsPerSec;
  AwakeClock clock([] { return real_now_ns; });
  EXPECT_EQ(clock.now_ns(), 100 * kNsPerSec);
  real_now_ns += 11 * kNsPerSec;
  EXPECT_EQ(clock.came_due(101 * kNsPerSec), 10 * kNsPerSec);
  EXPECT_EQ(clock.now_ns(), 101 * kNsPerSec) << "as if it had come in time";
  EXPECT_EQ(clock.real_ns(clock.now_ns()), real_now_ns);
}

TEST(AwakeClockTest, WhatIsALittleLateIsNoStall) {
  real_now_ns = 100 * kNsPerSec;
  AwakeClock clock([] { return real_now_ns; });
  real_now_ns += kNsPerSec;
  EXPECT_EQ(clock.came_due(100 * kNsPerSec), 0);
  EXPECT_EQ(clock.now_ns(), 101 * kNsPerSec);
}

}  // namespace
}  // namespace penstock::queue
