#include "shared/http/problem.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock::http {
namespace {

std::string rendered(const Problem& problem) {
  char out[4096];
  return {out, render(problem, out, sizeof out)};
}

TEST(ProblemTest, IsAnRfc9457ProblemAndAnOpenAiError) {
  EXPECT_EQ(
      rendered({.status = 429,
                .detail = "Plan free allows 10 requests a minute. Try again in 12 s.",
                .code = "rate_limit_exceeded",
                .retry_after_s = 12,
                .violated_policies = "\"free-rate\""}),
      R"({"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":429,)"
      R"("detail":"Plan free allows 10 requests a minute. Try again in 12 s.","violated-policies":["free-rate"],"retry_after":12,)"
      R"("error":{"message":"Plan free allows 10 requests a minute. Try again in 12 s.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}})"
      "\n");
}

TEST(ProblemTest, EscapesWhatCallersMaySendBack) {
  const std::string text = rendered(
      {.status = 404, .detail = "model '\"\\\n\x01\xFF\xC3\xA9'", .code = "c", .param = "m"});
  EXPECT_NE(text.find("model '\\\"\\\\\\n\\u0001\xEF\xBF\xBD\xC3\xA9'"), std::string::npos) << text;
  EXPECT_NE(text.find(R"("param":"m")"), std::string::npos);
}

TEST(ProblemTest, WhatNginxItselfMayAnswerHasItsOwnTitle) {
  EXPECT_EQ(title_of(408), "Request Timeout");
  EXPECT_EQ(title_of(412), "Precondition Failed");
  EXPECT_EQ(title_of(414), "URI Too Long");
  EXPECT_EQ(title_of(416), "Range Not Satisfiable");
  EXPECT_EQ(title_of(418), "Client Error");
}

TEST(ProblemTest, HasAChallengeAsItIs) {
  const std::string challenge = R"({"salt":"?expires=1&l=2&"})";
  const std::string text = rendered(
      {.status = 403, .detail = "d", .code = "challenge_required", .challenge = challenge});
  EXPECT_NE(text.find(R"(,"challenge":)" + challenge + R"(,"error":)"), std::string::npos) << text;
}

TEST(ProblemTest, GivesNothingRatherThanHalf) {
  const Problem problem{.status = 400, .detail = "why", .code = "invalid_request"};
  char out[4096];
  const size_t size = render(problem, out, sizeof out);
  ASSERT_GT(size, 0U);
  for (size_t capacity = 0; capacity < size; ++capacity) {
    EXPECT_EQ(render(problem, out, capacity), 0U);
  }
  EXPECT_EQ(render(problem, out, size), size);
}

TEST(EscapeJsonTest, RefusesOverlongSurrogateAndCutSequences) {
  for (const std::string bad :
       {"\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82"}) {
    char out[64];
    const char* end = escape_json(bad, out, out + sizeof out);
    ASSERT_NE(end, nullptr);
    std::string expected;
    for (size_t i = 0; i < bad.size(); ++i) {
      expected += "\xEF\xBF\xBD";
    }
    EXPECT_EQ(std::string(out, static_cast<size_t>(end - out)), expected);
  }
}

}  // namespace
}  // namespace penstock::http
