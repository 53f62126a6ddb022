#include "shared/base/event_loop.h"

#include <gtest/gtest.h>

#include "shared/base/clock.h"

namespace penstock {
namespace {

TEST(EventLoopTest, WhatIsLongDueIsNotWaitedFor) {
  auto loop = EventLoop::create();
  ASSERT_TRUE(loop);
  const int64_t began_ns = monotonic_ns();
  for (const int64_t due_ns : {INT64_MIN, int64_t{-1}, int64_t{0}, began_ns}) {
    loop->run_once(began_ns, due_ns);
  }
  EXPECT_LT(monotonic_ns() - began_ns, 10 * kNsPerSec);
}

}  // namespace
}  // namespace penstock
