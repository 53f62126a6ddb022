#include "worker/queue/challenges/provider_answer.h"

#include <gtest/gtest.h>

namespace penstock::queue {
namespace {

using wire::Verdict;

constexpr int64_t kNowS = 1'700'000'000;  // 2023-11-14T22:13:20Z

ProviderConfig provider() { return {.name = "turnstile", .hostnames = {"example.com"}}; }

std::string good(const std::string& time = "2023-11-14T22:13:00.096Z",
                 const std::string& more = "") {
  return R"({"success":true,"error-codes":[],"hostname":"example.com","challenge_ts":")" + time +
         "\"" + more + "}";
}

Verdict judge(const std::string& body, int status = 200, const ProviderConfig& of = provider()) {
  return judge_answer(of, status, body, kNowS).verdict;
}

TEST(ProviderAnswerTest, NothingButAClearYesIsOne) {
  EXPECT_EQ(judge(good()), Verdict::kGood);
  EXPECT_EQ(judge(good(), 400), Verdict::kUnknown);
  EXPECT_EQ(judge(good(), 302), Verdict::kUnknown);
  EXPECT_EQ(judge(good(), 500), Verdict::kUnknown);
  EXPECT_EQ(judge(good().substr(0, good().size() - 1)), Verdict::kUnknown);
  EXPECT_EQ(judge(""), Verdict::kUnknown);
  EXPECT_EQ(judge("true"), Verdict::kUnknown);
  EXPECT_EQ(judge("[" + good() + "]"), Verdict::kUnknown);
  EXPECT_EQ(judge(R"({"success":1})"), Verdict::kUnknown);
  EXPECT_EQ(judge(R"({"success":"true"})"), Verdict::kUnknown);
  EXPECT_EQ(judge(R"({"success":null})"), Verdict::kUnknown);
}

TEST(ProviderAnswerTest, OfTwoMembersOfOneNameTheLastCounts) {
  EXPECT_EQ(judge(good("2023-11-14T22:13:00Z", R"(,"success":false)")), Verdict::kBad);
  EXPECT_EQ(judge(good("2023-11-14T22:13:00Z", R"(,"hostname":"evil.example")")), Verdict::kBad);
}

TEST(ProviderAnswerTest, TheOperatorsFaultsAreNotTheCallers) {
  for (const char* const code :
       {"invalid-input-secret", "missing-input-secret", "internal-error"}) {
    const std::string body = R"({"success":false,"error-codes":[")" + std::string(code) + "\"]}";
    EXPECT_EQ(judge(body), Verdict::kUnknown) << code;
    EXPECT_EQ(judge(body, 400), Verdict::kUnknown) << code;
    EXPECT_EQ(judge(R"({"success":false,"error-codes":[],"action":")" + std::string(code) + "\"}"),
              Verdict::kBad);
    EXPECT_EQ(judge(R"({"success":false,"error-codes":[],"cdata":")" + std::string(code) + "\"}"),
              Verdict::kBad);
    EXPECT_EQ(
        judge(R"({"success":false,"error-codes":[],"hostname":")" + std::string(code) + "\"}"),
        Verdict::kBad);
  }
  for (const char* const code :
       {"timeout-or-duplicate", "invalid-input-response", "bad-request", "never-heard-of"}) {
    EXPECT_EQ(judge(R"({"success":false,"error-codes":[")" + std::string(code) + "\"]}"),
              Verdict::kBad)
        << code;
  }
}

TEST(ProviderAnswerTest, WhatATokenOfAnotherSiteBringsAboutIsTheCallersAndTold) {
  for (const char* const code :
       {"sitekey-secret-mismatch", "not-using-dummy-passcode", "invalid-keys"}) {
    const ProviderVerdict judged =
        judge_answer(provider(), 200,
                     R"({"success":false,"error-codes":[")" + std::string(code) + "\"]}", kNowS);
    EXPECT_EQ(judged.verdict, Verdict::kBad) << code;
    EXPECT_TRUE(judged.maybe_ours) << code;
  }
  EXPECT_FALSE(judge_answer(provider(), 200, R"({"success":false})", kNowS).maybe_ours);
}

TEST(ProviderAnswerTest, AgesAndSpellingsOfTimes) {
  EXPECT_EQ(judge(good("2023-11-14T22:13:20Z")), Verdict::kGood);
  EXPECT_EQ(judge(good("2023-11-14T22:08:20Z")), Verdict::kGood);
  EXPECT_EQ(judge(good("2023-11-14T22:08:19Z")), Verdict::kBad);
  EXPECT_EQ(judge(good("2023-11-14T22:14:20Z")), Verdict::kGood);
  EXPECT_EQ(judge(good("2023-11-14T22:14:21Z")), Verdict::kBad);
  EXPECT_EQ(judge(good("2023-11-14T23:13:00+01:00")), Verdict::kGood);
  EXPECT_EQ(judge(good("2023-11-14T21:13:00-0100")), Verdict::kGood);
  EXPECT_EQ(judge(good("2023-11-14T22:13:00.123456789Z")), Verdict::kGood);
  for (const char* const none :
       {"", "yesterday", "2023-11-14", "2023-11-14T22:13:00", "2023-11-14T22:13:00Zx",
        "2023-11-14 22:13:00Z", "-023-11-14T22:13:00Z", "2023-10-45T22:13:00Z",
        "2023-11-14T22:13:00+1"}) {
    EXPECT_EQ(judge(good(none)), Verdict::kUnknown) << none;
  }
}

TEST(ProviderAnswerTest, HostsActionsAndScores) {
  ProviderConfig of = provider();
  of.action = "enter";
  of.name = "recaptcha";
  of.least_score = 0.7;
  const std::string time = "2023-11-14T22:13:00Z";
  EXPECT_EQ(judge(good(time, R"(,"action":"enter","score":0.7)"), 200, of), Verdict::kGood);
  EXPECT_EQ(judge(good(time, R"(,"action":"enter","score":0.69)"), 200, of), Verdict::kBad);
  EXPECT_EQ(judge(good(time, R"(,"action":"enter")"), 200, of), Verdict::kBad);
  EXPECT_EQ(judge(good(time, R"(,"action":"Enter","score":1)"), 200, of), Verdict::kBad);
  EXPECT_EQ(judge(good(time, R"(,"score":1)"), 200, of), Verdict::kBad);
  of.hostnames = {"www.example.com"};
  EXPECT_EQ(judge(good(time, R"(,"action":"enter","score":1)"), 200, of), Verdict::kBad);
}

TEST(ProviderAnswerTest, AScoreOfRecaptchaIsToBeHalfUnlessItIsSaidOtherwise) {
  ProviderConfig of = provider();
  of.name = "recaptcha";
  const std::string time = "2023-11-14T22:13:00Z";
  EXPECT_EQ(judge(good(time, R"(,"score":0.5)"), 200, of), Verdict::kGood);
  EXPECT_EQ(judge(good(time, R"(,"score":0.1)"), 200, of), Verdict::kBad);
  EXPECT_EQ(judge(good(time, R"(,"score":null)"), 200, of), Verdict::kBad);
  EXPECT_EQ(judge(good(time), 200, of), Verdict::kGood);            // of version 2
  EXPECT_EQ(judge(good(time, R"(,"score":0.1)")), Verdict::kGood);  // of another provider's
  of.least_score = 0;
  EXPECT_EQ(judge(good(time, R"(,"score":0)"), 200, of), Verdict::kGood);
  const ProviderVerdict none = judge_answer(of, 200, good(time), kNowS);
  EXPECT_EQ(none.verdict, Verdict::kBad);
  EXPECT_EQ(none.reason, "the answer has no score; is it a v2 key?");
}

}  // namespace
}  // namespace penstock::queue
