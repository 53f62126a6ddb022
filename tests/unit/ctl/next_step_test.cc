#include "worker/ctl/next_step.h"

#include <gtest/gtest.h>

#include "shared/base/clock.h"
#include "worker/ctl/progress_bar.h"

namespace penstock::ctl {
namespace {

TEST(NextStepTest, WhatTellsToComeBackIsObeyedHoweverOften) {
  for (const int status : {429, 503}) {
    const NextStep step = next_step({.status = status, .retry_after_s = 41'000}, 1000);
    EXPECT_EQ(step.kind, NextStep::kAgain);
    EXPECT_EQ(step.wait_ms, 41'000'000);
    EXPECT_TRUE(step.for_all);
  }
  EXPECT_EQ(next_step({.status = 503}, 1).wait_ms, 1000);
  EXPECT_EQ(next_step({.status = 503}, 3).wait_ms, 4000);
  EXPECT_EQ(next_step({.status = 503}, 1000).wait_ms, 30'000);
}

TEST(NextStepTest, WhatIsLostIsTriedAgainAndThenGivenUp) {
  EXPECT_EQ(next_step({}, 1).kind, NextStep::kAgain);
  EXPECT_FALSE(next_step({}, 1).for_all);
  EXPECT_EQ(next_step({}, kMostTries - 1).kind, NextStep::kAgain);
  EXPECT_EQ(next_step({}, kMostTries).kind, NextStep::kGiveUp);
}

TEST(NextStepTest, NginxsOwnBadGatewayIsTriedAgainAndTheEnginesIsFinal) {
  EXPECT_EQ(next_step({.status = 502}, 1).kind, NextStep::kAgain);
  EXPECT_EQ(next_step({.status = 504}, kMostTries).kind, NextStep::kFinal);
  EXPECT_EQ(next_step({.status = 502, .of_a_job = true}, 1).kind, NextStep::kFinal);
}

TEST(NextStepTest, WhatIsRefusedToTheCallerIsNoAnswerToTheRequest) {
  for (const int status : {401, 403}) {
    EXPECT_EQ(next_step({.status = status, .of_a_job = true}, 1).kind, NextStep::kPutOff);
  }
}

TEST(NextStepTest, APromiseIsPolledAndAllElseIsFinal) {
  EXPECT_EQ(next_step({.status = 202, .retry_after_s = 7}, 1).kind, NextStep::kPoll);
  EXPECT_EQ(next_step({.status = 202, .retry_after_s = 7}, 1).wait_ms, 7000);
  EXPECT_EQ(next_step({.status = 202}, 1).wait_ms, 1000);
  for (const int status : {200, 400, 404, 409, 422, 500}) {
    EXPECT_EQ(next_step({.status = status}, 1).kind, NextStep::kFinal) << status;
  }
  EXPECT_EQ(next_step({.status = 409, .retry_after_s = 2}, 1).kind, NextStep::kAgain);
}

TEST(RateTest, IsANumberAndATime) {
  EXPECT_EQ(parse_rate_ns("1/120s"), 120 * kNsPerSec);
  EXPECT_EQ(parse_rate_ns("10/1m"), 6 * kNsPerSec);
  EXPECT_EQ(parse_rate_ns("4/1s"), kNsPerSec / 4);
  for (const char* text : {"", "1", "/", "1/", "/1s", "0/1s", "-1/1s", "1/0s", "1/s", "1.5/1s",
                           "1/1s/1", "x/1s", "99999999999999999999/1s"}) {
    EXPECT_FALSE(parse_rate_ns(text)) << text;
  }
}

TEST(ProgressBarTest, TellsHowFarItIsAndHowLongItWillTake) {
  EXPECT_EQ(
      progress_bar({.all = 50,
                    .done = 15,
                    .failed = 1,
                    .at_work = 4,
                    .waiting_s = 90,
                    .done_before = 5,
                    .seconds = 20}),
      "[#########---------------------]  15/50, 1 failed, 4 at work, told to wait 1 min 30 s, "
      "about 1 min 10 s left");
  EXPECT_EQ(progress_bar({.all = 2, .done = 2}),
            "[##############################]  2/2, 0 at work");
}

}  // namespace
}  // namespace penstock::ctl
