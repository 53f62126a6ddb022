// The reader of request bodies, held to JSON's grammar: as the value of a field that it ignores.
#include <gtest/gtest.h>

#include "tests/unit/json_rules.h"
#include "worker/pool/openai.h"

namespace penstock::openai {
namespace {

// The failure's words; empty when the body was taken.
std::string refusal(const std::string& body) {
  const Parsed parsed = parse({.method = "POST",
                               .path = "/v1/completions",
                               .content_type = "application/json",
                               .body = body});
  const auto* const failure = std::get_if<Failure>(&parsed);
  EXPECT_TRUE(failure == nullptr || failure->status == 400) << body;
  return failure != nullptr ? failure->message : "";
}
std::string around(const std::string& value) {
  return R"({"prompt":"x","metadata":)" + value + "}";
}

TEST(JsonRulesTest, WhatTheGrammarHasIsTaken) {
  for (const std::string& value : json_rules::kValid) {
    EXPECT_EQ(refusal(around(value)), "") << value.substr(0, 60);
  }
}

TEST(JsonRulesTest, WhatItHasNotIsRefused) {
  for (const std::string& value : json_rules::kInvalid) {
    EXPECT_NE(refusal(around(value)), "") << value.substr(0, 60);
    EXPECT_NE(refusal(value), "") << value.substr(0, 60);
  }
}

TEST(JsonRulesTest, AByteOrderMarkIsPassedOver) {
  const std::string mark = "\xEF\xBB\xBF";
  EXPECT_EQ(refusal(mark + R"({"prompt":"x"})"), "");
  EXPECT_EQ(refusal(mark + R"( {"prompt":"x",})").find("byte order"), std::string::npos);
  for (const std::string& body : {mark, mark + mark + R"({"prompt":"x"})",
                                  " " + mark + R"({"prompt":"x"})", mark.substr(1) + "{}"}) {
    EXPECT_NE(refusal(body), "") << "only one, and only at the beginning";
  }
}

}  // namespace
}  // namespace penstock::openai
