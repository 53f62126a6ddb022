#include "worker/ctl/job_table.h"

#include <gtest/gtest.h>

namespace penstock::ctl {
namespace {

constexpr int64_t kNow = 1'763'780'100;

TEST(JobTableTest, ALineForEachJobAndWhereTheNextPageBegins) {
  const auto text = jobs_table(
      R"({"data":[{"id":"job_2","status":"queued","queue":"default","model":"demo","tier":"pro",
            "position":5,"eta_seconds":61,"progress":null,"attempts":0,"created_at":1763780000,
            "owner":"0123456789abcdef0123456789abcdef"},
          {"id":"job_1","status":"processing","queue":"video","model":null,"tier":null,
            "position":null,"eta_seconds":null,"progress":{"fraction":0.256,"step":3,"steps":12},
            "attempts":1,"created_at":1763700000,"owner":null}],
          "has_more":true,"last_id":"job_1"})",
      kNow);
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(*text,
            "JOB    STATUS      QUEUE    MODEL  TIER  PLACE  ETA        PROGRESS       TRIES  "
            "AGE          OWNER\n"
            "job_2  queued      default  demo   pro   5      1 min 1 s  -              0      "
            "1 min 40 s   01234567\n"
            "job_1  processing  video    -      -     -      -          25% (3 of 12)  1      "
            "22 h 15 min  -\n"
            "\nThere are more: --after job_1\n");
}

TEST(JobTableTest, DeadLettersHaveTheirErrorCutBetweenCharacters) {
  const std::string error = std::string(59, 'x') + "\xC3\xA9 and so on";
  const auto text = dead_table(R"({"data":[{"id":"job_1","queue":"default","attempts":3,
      "finished_at":1763780040,"error":{"code":"engine_failed","message":")" +
                                   error + R"("}}],"has_more":false})",
                               kNow);
  ASSERT_TRUE(text);
  EXPECT_NE(text->find("1 min ago"), std::string::npos);
  EXPECT_NE(text->find(std::string(59, 'x') + "...\n"), std::string::npos) << *text;
}

TEST(JobTableTest, NothingIsSaidInWordsAndNoListIsAnError) {
  EXPECT_EQ(*jobs_table(R"({"data":[]})", kNow), "there are no such jobs\n");
  EXPECT_EQ(*dead_table(R"({"data":[],"has_more":false})", kNow), "there are no dead letters\n");
  EXPECT_FALSE(jobs_table(R"({"data":{}})", kNow));
  EXPECT_FALSE(jobs_table("[]", kNow));
  EXPECT_FALSE(job_lines("7"));
}

TEST(JobTableTest, OneJobIsShownWithWhatIsKnownOfIt) {
  const auto text =
      job_lines(R"({"id":"job_1","status":"failed","queue":"default","priority":10,"attempts":2,
                    "created_at":1763780000,"position":null,"error":{"message":"Out of paper."},
                    "request":{"method":"POST","path":"/v1/x","body_bytes":5,"truncated":false,
                    "body":"a\u001b[2J"}})");
  ASSERT_TRUE(text);
  EXPECT_EQ(*text,
            "job         job_1\n"
            "status      failed\n"
            "queue       default\n"
            "priority    10\n"
            "tries       2\n"
            "created     2025-11-22 02:53:20 UTC\n"
            "error       Out of paper.\n"
            "request     POST /v1/x\n"
            "bytes       5\n"
            "\na?[2J\n");
}

}  // namespace
}  // namespace penstock::ctl
