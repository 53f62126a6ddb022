#include "shared/base/log_bound.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(LogBoundTest, AdmitsABurstAndThenSoManyASecond) {
  LogBound bound(3, 2);
  int64_t now_ns = 100 * kNsPerSec;
  const auto admitted = [&](int lines) {
    int count = 0;
    for (int i = 0; i < lines; ++i) {
      count += bound.admits(now_ns) ? 1 : 0;
    }
    return count;
  };
  EXPECT_EQ(admitted(10), 3);
  EXPECT_EQ(bound.take_left_out(), 7U);
  EXPECT_EQ(bound.take_left_out(), 0U);
  now_ns += kNsPerSec / 2;
  EXPECT_EQ(admitted(2), 1);
  now_ns += 100 * kNsPerSec;
  EXPECT_EQ(admitted(10), 3) << "an idle hour saves up no more than a burst";
  EXPECT_EQ(bound.take_left_out(), 8U);
}

TEST(LogBoundTest, AClockThatWasSetBackFreesNothing) {
  LogBound bound(1, 1);
  EXPECT_TRUE(bound.admits(100 * kNsPerSec));
  EXPECT_FALSE(bound.admits(50 * kNsPerSec));
}

}  // namespace
}  // namespace penstock
