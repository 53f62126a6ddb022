#include "worker/engines/process/messages.h"

#include <gtest/gtest.h>

namespace penstock::process {
namespace {

template <typename T>
T read(const std::string& line) {
  MessageReader reader;
  Message message = reader.read(line);
  const auto* what = std::get_if<T>(&message.what);
  EXPECT_NE(what, nullptr) << line << " is another message: " << message.what.index();
  return what == nullptr ? T{} : *what;
}

TEST(MessagesTest, EachIsReadWithAllThatItSays) {
  EXPECT_EQ(read<Hello>("{\"penstock\":1}").version, 1U);
  read<Ready>("{\"ready\":true}");
  const auto progress = read<Progress>("{\"progress\":0.4,\"step\":12,\"steps\":30}");
  EXPECT_EQ(progress.fraction, 0.4);
  EXPECT_EQ(progress.step, 12U);
  EXPECT_EQ(progress.steps, 30U);
  EXPECT_EQ(read<Chunk>("{\"chunk\":\"a\\n\",\"type\":\"text/event-stream\"}").text, "a\n");
  const auto preview = read<Preview>("{\"preview\":{\"type\":\"image/png\",\"base64\":\"aGk=\"}}");
  EXPECT_EQ(preview.picture.bytes, "hi");
  const auto answer = read<Answer>(
      "{\"result\":{\"type\":\"image/png\",\"file\":\"a.png\"},"
      "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}");
  EXPECT_EQ(answer.content.file, "a.png");
  EXPECT_EQ(answer.usage.prompt_tokens, 3U);
  EXPECT_EQ(answer.usage.completion_tokens, 2U);
  const auto refusal = read<Refusal>(
      "{\"error\":{\"code\":\"invalid_request\",\"message\":\"no\",\"retryable\":true}}");
  EXPECT_EQ(refusal.failure.status, 400);
  EXPECT_EQ(refusal.failure.message, "no");
  EXPECT_TRUE(refusal.failure.retryable);
}

TEST(MessagesTest, AJobMayBeNamed) {
  MessageReader reader;
  EXPECT_EQ(reader.read("{\"job\":7,\"progress\":1}").job, 7U);
  EXPECT_EQ(reader.read("{\"progress\":1}").job, std::nullopt);
  EXPECT_EQ(reader.read("{\"job\":\"x\",\"progress\":1}").job, std::nullopt);
}

TEST(MessagesTest, AResultThatIsJsonIsSentAsJson) {
  const auto answer = read<Answer>("{\"result\":{\"body\":{\"a\": [1, 2]}}}");
  EXPECT_EQ(answer.content.bytes, "{\"a\":[1,2]}");
  EXPECT_EQ(answer.content.type, "application/json");
}

TEST(MessagesTest, OfTwoMembersOfOneNameTheLastCounts) {
  EXPECT_EQ(read<Chunk>("{\"chunk\":\"a\",\"chunk\":\"b\"}").text, "b");
}

TEST(MessagesTest, TokensThatAreNoCountAreNone) {
  for (const char* const count : {"-1", "1.5", "\"7\"", "1099511627776", "null"}) {
    const auto answer =
        read<Answer>("{\"result\":{},\"usage\":{\"prompt_tokens\":" + std::string(count) + "}}");
    EXPECT_EQ(answer.usage.prompt_tokens, 0U) << count;
  }
}

TEST(MessagesTest, AnObjectWithoutOurKeysIsNoise) {
  read<Noise>("{\"level\":\"info\",\"message\":\"loading\"}");
  read<Noise>("{}");
}

TEST(MessagesTest, WhatNothingDependsOnIsDropped) {
  for (const char* const line :
       {"{\"preview\":7}", "{\"preview\":{\"type\":\"image/png\",\"base64\":\"*\"}}",
        "{\"preview\":{\"type\":\"image/png\",\"base64\":\"aGk=\",\"file\":\"a\"}}",
        "{\"progress\":\"half\"}", "{\"progress\":NaN}", "{\"progress\":0.5"}) {
    read<Dropped>(line);
  }
}

TEST(MessagesTest, WhatCannotBeReadSaysWhyAndWhere) {
  EXPECT_EQ(read<Broken>("{\"progress\":0.5}{\"result\":{}}").why,
            "there is more after the object, at column 17; each object has a line of its own");
  EXPECT_EQ(read<Broken>("{\"chunk\":\"}\\\"{\"} x").why,
            "there is more after the object, at column 18; each object has a line of its own");
  EXPECT_EQ(read<Broken>("{\"chunk\":7}").why, "the value of \"chunk\" must be a text");
  EXPECT_EQ(read<Broken>("{\"result\":{\"file\":\"a\",\"body\":\"b\"}}").why,
            "the \"result\" must have only one of \"file\", \"body\" and \"base64\"");
  for (const char* const line :
       {"{'result': 1}", "{\"chunk\":\"a", "{\"chunk\":\"\xff\"}", "{",
        "{\"result\":{\"type\":\"a/b\\r\\nX: y\"}}", "{\"result\":{\"type\":\"png\"}}",
        "{\"result\":7}", "{\"error\":7}", "{\"penstock\":\"1\"}", "{\"ready\":false}"}) {
    EXPECT_NE(read<Broken>(line).why, "") << line;
  }
}

TEST(MessagesTest, AnErrorKeepsToWhatCallersMayBeTold) {
  const auto failure = read<Refusal>("{\"error\":{\"code\":\"Bad Code\"}}").failure;
  EXPECT_EQ(failure.code, "engine_failed");
  EXPECT_EQ(failure.status, 502);
  EXPECT_NE(failure.message, "");
  const auto long_one =
      read<Refusal>("{\"error\":{\"message\":\"" + std::string(5000, 'x') + "\"}}").failure;
  EXPECT_EQ(long_one.message.size(), 1024U);
}

}  // namespace
}  // namespace penstock::process
