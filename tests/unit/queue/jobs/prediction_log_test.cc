#include "worker/queue/jobs/prediction_log.h"

#include <gtest/gtest.h>

#include "shared/base/clock.h"

namespace penstock::queue {
namespace {

ForetoldWait wait_of(int64_t waited_ms) {
  return {.queue = "q",
          .model = "m",
          .told_ms = 1'795'960'980'000,
          .said_ns = 2 * kNsPerSec,
          .soon_ns = kNsPerSec,
          .late_ns = 3 * kNsPerSec,
          .waited_ns = waited_ms * kNsPerMs};
}

TEST(PredictionLogTest, WhatCameTrueStandsBesideWhatWasTold) {
  PredictionLog log;
  EXPECT_EQ(log.json(), R"({"predictions":[]})");
  log.add(wait_of(1500));
  EXPECT_NE(log.json().find(R"("queue":"q","model":"m","at":1795960980,"said_ms":2000,)"
                            R"("soon_ms":1000,"late_ms":3000,"waited_ms":1500,"inside":true})"),
            std::string::npos)
      << log.json();
}

TEST(PredictionLogTest, ItIsInsideFromTheFirstToTheLastMoment) {
  for (const auto& [waited_ms, inside] :
       {std::pair{999, false}, {1000, true}, {3000, true}, {3001, false}}) {
    EXPECT_EQ(wait_of(waited_ms).inside(), inside) << waited_ms;
  }
}

TEST(PredictionLogTest, TheOldestGivesWayAndTheNewestComesFirst) {
  PredictionLog log;
  constexpr int kMore = 3;
  for (int i = 0; i < static_cast<int>(PredictionLog::kKept) + kMore; ++i) {
    log.add(wait_of(i));
  }
  const std::string json = log.json();
  size_t at = 0;
  for (int i = PredictionLog::kKept + kMore - 1; i >= kMore; --i) {
    at = json.find("\"waited_ms\":" + std::to_string(i) + ",", at);
    ASSERT_NE(at, std::string::npos) << i;
  }
  EXPECT_EQ(json.find("\"waited_ms\":2,"), std::string::npos);
}

TEST(PredictionLogTest, NamesAreText) {
  PredictionLog log;
  ForetoldWait wait = wait_of(1);
  wait.model = "\"<\xff\n";
  log.add(wait);
  EXPECT_NE(log.json().find("\"model\":\"\\\"<\xEF\xBF\xBD\\n\""), std::string::npos) << log.json();
}

}  // namespace
}  // namespace penstock::queue
