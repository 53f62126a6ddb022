#include "worker/queue/jobs/job_view.h"

#include <gtest/gtest.h>

namespace penstock::queue {
namespace {

JobId id_at(int64_t ms) { return JobIdMaker().make(ms); }

TEST(JobViewTest, AQueuedJobSaysWhereItStands) {
  const JobId id = id_at(1'763'780'000'000);
  JobView view{.id = id, .queue = "demo", .jobs_path = "/jobs", .position = 5};
  view.eta_seconds = 42;
  view.eta_range = JobView::Range{30, 70};
  view.created_ms = created_ms(id);
  EXPECT_EQ(
      render(view),
      R"({"id":")" + std::string(id.view()) +
          R"(","object":"job","status":"queued","queue":"demo","position":5,"eta_seconds":42,"eta_range":[30,70],)"
          R"("progress":null,"attempts":0,"created_at":1763780000,"started_at":null,)"
          R"("finished_at":null,"result_url":null,"error":null})");
}

TEST(JobViewTest, WhereNobodyKnowsTheWaitItSaysWhy) {
  JobView view{.id = "job_1", .position = 5};
  view.eta_reason = "paused";
  EXPECT_NE(render(view).find(R"("eta_seconds":null,"eta_range":null,"eta_reason":"paused")"),
            std::string::npos);
}

TEST(JobViewTest, AJobThatMovedBackSaysFromWhereAndWhy) {
  JobView view{.id = "job_1", .position = 5};
  EXPECT_EQ(render(view).find("moved"), std::string::npos);
  EXPECT_EQ(render(view).find("eta_reason"), std::string::npos);
  view.moved = JobView::Moved{4, "class"};
  EXPECT_NE(render(view).find(R"("moved":{"from":4,"by":"class"})"), std::string::npos);
}

TEST(JobViewTest, AnEndedJobSaysHowLongItIsKeptAndWhetherItCounts) {
  JobView view{.id = "job_1", .expires_ms = 5000};
  for (int i = 0; i <= static_cast<int>(JobStatus::kExpired); ++i) {
    view.status = static_cast<JobStatus>(i);
    const std::string json = render(view);
    const bool counted =
        view.status == JobStatus::kCompleted || view.status == JobStatus::kCancelled;
    EXPECT_EQ(json.find(R"("expires_at":5,"counted":)") != std::string::npos,
              has_ended(view.status));
    EXPECT_EQ(json.find(R"("counted":true)") != std::string::npos, counted) << json;
  }
}

TEST(JobViewTest, OnlyACompletedJobHasAResult) {
  const JobId id = id_at(1);
  JobView view{.id = id, .queue = "q", .jobs_path = "/api/jobs"};
  for (int i = 0; i <= static_cast<int>(JobStatus::kExpired); ++i) {
    view.status = static_cast<JobStatus>(i);
    const std::string json = render(view);
    const std::string url = R"("result_url":"/api/jobs/)" + std::string(id.view()) + R"(/result")";
    EXPECT_EQ(json.find(url) != std::string::npos, view.status == JobStatus::kCompleted) << json;
    EXPECT_EQ(status_named(name_of(view.status)), view.status);
  }
  EXPECT_FALSE(status_named("done"));
}

TEST(JobViewTest, ProgressCountsStepsWhereTheyAreCounted) {
  JobView view{.id = "job_1", .status = JobStatus::kProcessing};
  view.progress = 0.25;
  EXPECT_NE(render(view).find(R"("progress":{"fraction":0.2500})"), std::string::npos);
  view.step = 3;
  view.steps = 12;
  EXPECT_NE(render(view).find(R"("progress":{"fraction":0.2500,"step":3,"steps":12})"),
            std::string::npos);
}

TEST(JobViewTest, AnOwnerIsReadAsItIsShown) {
  JobView job;
  job.origin = JobView::Origin{"free", 0, {0x0123456789abcdef, 0xf00}};
  EXPECT_NE(render(job).find(R"("owner":"0000000000000f000123456789abcdef")"), std::string::npos);
  EXPECT_EQ(parse_owner("0000000000000f000123456789abcdef"), job.origin->owner);
  for (const char* none :
       {"", "f00", "0000000000000f000123456789abcdeg", "0000000000000f00 123456789abcdef",
        "00000000000000000000000000000000", "0000000000000f000123456789abcdef0"}) {
    EXPECT_FALSE(parse_owner(none)) << none;
  }
}

TEST(JobIdTest, ReadsItsTimeBack) {
  for (const int64_t ms : {int64_t{0}, int64_t{1}, int64_t{1'763'780'000'123}}) {
    EXPECT_EQ(created_ms(id_at(ms)), ms);
  }
}

TEST(JobIdTest, WhatIsNoIdIsRefused) {
  const std::string good(id_at(1'763'780'000'123).view());
  ASSERT_TRUE(parse_job_id(good));
  EXPECT_EQ(parse_job_id(good)->view(), good);
  std::string lower = good, other = good, early = good;
  lower[10] = 'a';
  other[29] = 'U';
  early[4] = '8';
  for (const std::string& bad :
       {std::string(), std::string("job_"), good + "0", good.substr(1), lower, other, early,
        std::string(30, 'A'), "../" + good.substr(3)}) {
    EXPECT_FALSE(parse_job_id(bad)) << bad;
  }
}

}  // namespace
}  // namespace penstock::queue
