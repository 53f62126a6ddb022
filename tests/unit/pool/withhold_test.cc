#include "worker/pool/withhold.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock {
namespace {

TEST(WithholdTest, WhatWasAskedIsNotSaid) {
  const std::string body = R"({"model":"m","prompt":"My dear diary, today I was sad."})";
  EXPECT_EQ(withhold("bad value 'My dear diary, today I was sad.' for a field", {body}),
            "bad value '[withheld]' for a field");
  EXPECT_EQ(withhold("CUDA out of memory", {body}), "CUDA out of memory");
  EXPECT_EQ(withhold("My dear diary, today", {body}), "[withheld]");
  EXPECT_EQ(withhold("today it rains", {body}), "today it rains") << "a few bytes are no secret";
}

TEST(WithholdTest, EscapesHideNothing) {
  const std::string asked =
      R"({"prompt":"\u4f60\u597d\uff0c\u8bf7\u95ee \ud83d\ude00 he said \"no\"\n"})";
  EXPECT_EQ(withhold("你好，请问 😀 he said \"no\"", {asked}), "[withheld]");
  EXPECT_EQ(withhold(R"(error: \u4f60\u597d\uff0c\u8bf7\u95ee)", {"你好，请问 and more"}),
            "error: [withheld]");
  EXPECT_EQ(withhold(R"({"detail":"he said \"no\" to it"})", {R"(he said \"no\" to it)"}),
            R"({"detail":"[withheld]"})");
}

TEST(WithholdTest, SeveralSecretsAndKeys) {
  EXPECT_EQ(withhold("Incorrect API key: sk-0123456789abcdef. My dear diary!",
                     {"Authorization: Bearer sk-0123456789abcdef", "", "My dear diary!"}),
            "Incorrect API key:[withheld]. [withheld]");
}

TEST(WithholdTest, WhatRepeatsItselfTakesNoLonger) {
  const std::string asked(size_t{3} << 20, 'a');
  EXPECT_EQ(withhold("bad: " + std::string(1900, 'a'), {asked}), "bad: [withheld]");
}

TEST(WithholdTest, ItIsOneLineAndBounded) {
  EXPECT_EQ(withhold("a\nb\xff", {}), "a?b?");
  EXPECT_LE(withhold(std::string(1'000'000, 'x'), {"y"}).size(), kMostSaidBytes);
  const std::string large(kMostSecretBytes + 1, 'y');
  EXPECT_EQ(withhold("anything", {large}), "[withheld]") << "it would take too long to look";
}

TEST(WithholdTest, HostileEscapes) {
  for (const char* const text :
       {"\\", "\\u", "\\u12", "\\ud83d", "\\ud83d\\u0041", "\\x", "\\\\"}) {
    withhold(text, {text});
  }
  EXPECT_EQ(withhold("", {""}), "");
}

}  // namespace
}  // namespace penstock
