#include "worker/engines/http/told.h"

#include <gtest/gtest.h>

#include "worker/engines/http/token_count.h"
#include "worker/engines/http/verdict.h"

namespace penstock::http_engine {
namespace {

using Count = std::optional<uint64_t>;

Told told(std::string_view event, std::string_view type = "") {
  TellTale tell_tale;
  return tell_tale.event(event, type);
}

ToldUsage usage(std::string_view event) { return told(event).usage.value_or(ToldUsage{}); }

TEST(ToldTest, AnEventIsAPartOfAnAnswerOnceItSaysMoreThanWhoSpeaks) {
  const auto content = [](const char* delta) {
    return told(std::string(R"({"choices":[{"index":0,"delta":)") + delta + "}]}").content;
  };
  EXPECT_FALSE(content(R"({"role":"assistant","content":""})"));
  EXPECT_FALSE(content(R"({"role":"assistant","content":null,"tool_calls":[]})"));
  EXPECT_TRUE(content(R"({"content":"a"})"));
  EXPECT_TRUE(content(R"({"reasoning_content":"a","content":""})"));
  EXPECT_TRUE(content(R"({"tool_calls":[{"function":{"name":"f","arguments":""}}]})"));
  EXPECT_TRUE(told(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})").content);
  EXPECT_FALSE(told(R"({"type":"message_start","message":{"content":[]}})").content);
  EXPECT_FALSE(told(R"({"type":"ping"})").content);
  EXPECT_TRUE(told(R"({"type":"content_block_delta","delta":{"text":"a"}})").content);
  EXPECT_FALSE(told(R"({"type":"response.created","response":{}})").content);
  EXPECT_TRUE(told(R"({"anything":"else"})").content);
}

TEST(ToldTest, UsageIsReadInEachShape) {
  const auto both = [](std::string_view event) {
    const ToldUsage read = usage(event);
    return std::pair(read.prompt.value_or(0), read.completion.value_or(0));
  };
  using Pair = std::pair<uint64_t, uint64_t>;
  EXPECT_EQ(both(R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}})"),
            Pair(3, 4));
  EXPECT_EQ(both(R"({"usage":{"prompt_tokens":3,"total_tokens":3}})"), Pair(3, 0));
  EXPECT_EQ(both(R"({"type":"message_delta","usage":{"input_tokens":1,"cache_read_input_tokens":2,)"
                 R"("cache_creation_input_tokens":4,"output_tokens":9}})"),
            Pair(7, 9));
  EXPECT_EQ(both(R"({"type":"message_start","message":{"usage":{"input_tokens":1}}})"), Pair(1, 0));
  EXPECT_EQ(both(R"({"type":"response.completed","response":{"usage":{"input_tokens":5,)"
                 R"("output_tokens":6}}})"),
            Pair(5, 6));
  EXPECT_EQ(both(R"({"done":true,"prompt_eval_count":7,"eval_count":8})"), Pair(7, 8));
  EXPECT_EQ(both(R"({"token":{"text":"a"},"details":{"input_length":2,"generated_tokens":1}})"),
            Pair(2, 1));
  EXPECT_FALSE(told(R"({"choices":[],"usage":null})").usage);
}

TEST(ToldTest, WhatCannotBeACountIsALie) {
  for (const char* const count : {"-3", "1.5", "1e18", "\"many\"", "1099511627776", "true", "[]"}) {
    const ToldUsage read =
        usage(std::string(R"({"usage":{"prompt_tokens":1,"completion_tokens":)") + count + "}}");
    EXPECT_TRUE(read.lies) << count;
    EXPECT_FALSE(read.completion) << count;
  }
}

TEST(ToldTest, TheLastTotalCounts) {
  ToldUsage all = usage(R"({"message":{"usage":{"input_tokens":10,"output_tokens":1}}})");
  all.update(usage(R"({"usage":{"output_tokens":64}})"));
  EXPECT_EQ(all.prompt, Count(10));
  EXPECT_EQ(all.completion, Count(64));
}

TEST(ToldTest, ErrorsAmountToAStatus) {
  const auto status = [](std::string_view event) {
    const auto error = told(event).error;
    return error ? error->status : -1;
  };
  EXPECT_EQ(status(R"({"error":{"code":503,"type":"x"}})"), 503);
  EXPECT_EQ(status(R"({"error":{"code":"404"}})"), 404);
  EXPECT_EQ(status(R"({"type":"error","error":{"type":"overloaded_error"}})"), 529);
  EXPECT_EQ(status(R"({"error":{"type":"rate_limit_error","code":"rate_limit_exceeded"}})"), 429);
  EXPECT_EQ(status(R"({"object":"error","message":"m","type":"NotFoundError","code":404})"), 404);
  EXPECT_EQ(status(R"({"error":"out of memory","error_type":"generation"})"), 0);
  EXPECT_EQ(status(R"({"error":"busy","error_type":"overloaded"})"), 529);
  EXPECT_EQ(status(R"({"type":"response.failed","response":{"error":{"code":"server_error"}}})"),
            0);
  EXPECT_EQ(status(R"({"error":null,"choices":[]})"), -1);
  EXPECT_EQ(status(R"({"error":"","choices":[]})"), -1);
}

TEST(VerdictTest, EachStatusHasItsFate) {
  const auto fate = [](int status) { return verdict_of(status, std::nullopt, std::nullopt).fate; };
  for (const int status : {429, 503, 529}) {
    EXPECT_EQ(fate(status), Fate::kReturned);
  }
  for (const int status : {400, 401, 404, 413, 422, 451, 501}) {
    EXPECT_EQ(fate(status), Fate::kTold);
  }
  for (const int status : {500, 502, 504, 520}) {
    EXPECT_EQ(fate(status), Fate::kAttempt);
  }
  EXPECT_EQ(fate(307), Fate::kOver);
}

TEST(VerdictTest, WhatIsNotPaidForIsOut) {
  const Verdict verdict = verdict_of(429, ToldError{.code = "insufficient_quota"}, std::nullopt);
  EXPECT_EQ(verdict.fate, Fate::kReturned);
  EXPECT_TRUE(verdict.out && verdict.quota);
}

TEST(TokenCountTest, WhatIsToldCountsAndTeaches) {
  TokenSizes sizes;
  std::string doubt;
  for (int i = 0; i < 200; ++i) {
    const Usage used = settle({.told = ToldUsage{.prompt = 10, .completion = 20},
                               .text = true,
                               .prompt_bytes = 20,
                               .completion_bytes = 40},
                              sizes, doubt);
    EXPECT_EQ(used.completion_tokens, 20U);
    EXPECT_FALSE(used.estimated);
  }
  EXPECT_EQ(doubt, "");
  const Usage guessed =
      settle({.text = true, .prompt_bytes = 20, .completion_bytes = 40}, sizes, doubt);
  EXPECT_TRUE(guessed.estimated);
  EXPECT_EQ(guessed.prompt_tokens, 10U);
  EXPECT_EQ(guessed.completion_tokens, 20U);
  EXPECT_NE(doubt.find("no usage"), doubt.npos);
}

TEST(TokenCountTest, GuessesTeachNothing) {
  TokenSizes sizes;
  std::string doubt;
  for (int i = 0; i < 100; ++i) {
    settle({.told = ToldUsage{.prompt = 1}, .text = true, .prompt_bytes = 2}, sizes, doubt);
  }
  EXPECT_EQ(settle({.text = true, .prompt_bytes = 40}, sizes, doubt).prompt_tokens, 10U);
}

TEST(TokenCountTest, APromptThatIsThereHasTokens) {
  TokenSizes sizes;
  std::string doubt;
  const Usage used =
      settle({.told = ToldUsage{.prompt = 0, .completion = 5}, .text = true, .prompt_bytes = 8},
             sizes, doubt);
  EXPECT_EQ(used.prompt_tokens, 2U);
  EXPECT_EQ(used.completion_tokens, 5U);
  EXPECT_TRUE(used.estimated);
}

TEST(TokenCountTest, WhatIsNoTextUsesNone) {
  TokenSizes sizes;
  std::string doubt;
  const Usage used = settle({.prompt_bytes = 100, .completion_bytes = 100}, sizes, doubt);
  EXPECT_EQ(used.prompt_tokens + used.completion_tokens, 0U);
  EXPECT_FALSE(used.estimated);
}

}  // namespace
}  // namespace penstock::http_engine
