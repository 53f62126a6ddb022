// The edge's reader of some fields does not judge: whatever valid value stands before a field, the
// field is found.
#include <gtest/gtest.h>

#include "shared/http/body_fields.h"
#include "tests/unit/json_rules.h"

namespace penstock::http {
namespace {

std::string model_behind(const std::string& value, size_t piece) {
  constexpr std::string_view kNames[] = {"model"};
  BodyFields fields(kNames);
  const std::string body = R"({"a":)" + value + R"(,"model":"m"})";
  for (size_t at = 0; at < body.size() && !fields.feed(std::string_view(body).substr(at, piece));
       at += piece) {
  }
  return std::string(fields[0].text);
}

TEST(JsonRulesTest, AFieldIsFoundBehindEveryValueThatTheGrammarHas) {
  for (const auto* all : {&json_rules::kValid, &json_rules::kOpen}) {
    for (const std::string& value : *all) {
      EXPECT_EQ(model_behind(value, SIZE_MAX), "m") << value.substr(0, 60);
      EXPECT_EQ(model_behind(value, 1), "m") << value.substr(0, 60);
    }
  }
}

}  // namespace
}  // namespace penstock::http
