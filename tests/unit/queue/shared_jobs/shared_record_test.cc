#include "worker/queue/shared_jobs/shared_record.h"

#include <gtest/gtest.h>

namespace penstock::queue {
namespace {

using State = SharedOrder::Known::State;

JobRecord some_record() {
  JobRecord record;
  record.id = *parse_job_id("job_01JD0000000000000000000000");
  record.owner = {1, UINT64_MAX};
  record.share = {3, 4};
  record.digest = {5, 6};
  record.queue = "q";
  record.model = "m";
  record.label = "label";
  record.jobs_path = "/jobs";
  record.priority = -7;
  record.weight = 8;
  record.cost = 9;
  record.created_ms = 10;
  return record;
}

JobRecord decoded(const SharedOrder::Known& known, std::string_view& answer) {
  JobRecord record;
  EXPECT_TRUE(decode(known, record, answer));
  return record;
}

TEST(SharedRecordTest, ARecordAndWhatIsBehindItComeBackAsTheyWere) {
  const std::string bytes = encode(some_record(), "the frame");
  JobRecord record;
  std::string_view rest;
  ASSERT_TRUE(decode(bytes, record, rest));
  EXPECT_EQ(rest, "the frame");
  EXPECT_EQ(record.id, some_record().id);
  EXPECT_EQ(record.owner, (limit::Hash128{1, UINT64_MAX}));
  EXPECT_EQ(record.share, (limit::Hash128{3, 4}));
  EXPECT_EQ(record.queue + record.model + record.label + record.jobs_path, "qmlabel/jobs");
  EXPECT_EQ(record.priority, -7);
  EXPECT_EQ(record.weight * 10 + record.cost, 89U);
  EXPECT_EQ(record.created_ms, 10);
}

TEST(SharedRecordTest, WhatIsNoRecordOrNotWholeIsNone) {
  const std::string bytes = encode(some_record(), "");
  JobRecord record;
  std::string_view rest;
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode(std::string_view(bytes).substr(0, size), record, rest)) << size;
  }
  EXPECT_FALSE(decode("a body of somebody else's, long enough for a header", record, rest));
}

TEST(SharedRecordTest, TheOrderSaysHowAJobIsThatHasNotEnded) {
  std::string_view answer;
  for (const auto& [state, status] : {std::pair{State::kScheduled, JobStatus::kScheduled},
                                      {State::kWaiting, JobStatus::kQueued},
                                      {State::kDelayed, JobStatus::kQueued},
                                      {State::kRunning, JobStatus::kProcessing}}) {
    const SharedOrder::Known known{
        .state = state, .attempts = 2, .result = encode(some_record(), "the frame")};
    const JobRecord record = decoded(known, answer);
    EXPECT_EQ(record.status, status);
    EXPECT_EQ(record.end.attempts, 2U);
    EXPECT_EQ(answer, "");  // what was asked is nobody's to see
  }
}

TEST(SharedRecordTest, AnEndIsTheHostsOrTheOrders) {
  std::string_view answer;
  JobRecord ended = some_record();
  ended.status = JobStatus::kCompleted;
  ended.end.content_type = "text/plain";
  const JobRecord record =
      decoded({.state = State::kOver, .how = 'D', .result = encode(ended, "the answer")}, answer);
  EXPECT_EQ(record.status, JobStatus::kCompleted);
  EXPECT_EQ(record.end.content_type, "text/plain");
  EXPECT_EQ(record.result_bytes, 10U);
  EXPECT_EQ(answer, "the answer");
  for (const auto& [how, status] : {std::pair{'C', JobStatus::kCancelled},
                                    {'E', JobStatus::kExpired},
                                    {'L', JobStatus::kFailed}}) {
    const JobRecord other = decoded(
        {.state = State::kOver, .how = how, .result = encode(some_record(), "the frame")}, answer);
    EXPECT_EQ(other.status, status);
    EXPECT_EQ(other.end.status, status);
    EXPECT_FALSE(other.end.error_code.empty());
    EXPECT_FALSE(other.end.answered());
    EXPECT_EQ(answer, "");
  }
}

}  // namespace
}  // namespace penstock::queue
