#include "shared/http/model_field.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock::http {
namespace {

std::string whole(std::string_view body) {
  ModelField field;
  field.feed(body);
  return std::string(field.value());
}

TEST(ModelFieldTest, FindsTheTopLevelModelWhereverItStands) {
  EXPECT_EQ(whole(R"({"model":"demo"})"), "demo");
  EXPECT_EQ(whole(R"( { "prompt" : "hi", "model" : "a/b-1" , "n":1})"), "a/b-1");
  EXPECT_EQ(whole(R"({"a":[1,{"model":"inner"},"]"],"b":{"model":"inner"},"model":"outer"})"),
            "outer");
}

TEST(ModelFieldTest, IsNotFooledByStringsThatLookLikeIt) {
  EXPECT_EQ(whole(R"({"prompt":"\"model\":\"x\"","model":"real"})"), "real");
  EXPECT_EQ(whole(R"({"prompt":"\\","model":"real"})"), "real");
  EXPECT_EQ(whole(R"({"modelx":"no","mode":"no"})"), "");
}

TEST(ModelFieldTest, UndoesEscapesInKeyAndValue) {
  EXPECT_EQ(whole("{\"\\u006dodel\":\"d\\u0065mo\\u00e9\\n\"}"), "demo\xC3\xA9\n");
}

TEST(ModelFieldTest, TakesTheFirstOfTwo) { EXPECT_EQ(whole(R"({"model":"a","model":"b"})"), "a"); }

TEST(ModelFieldTest, YieldsNothingFromWhatIsNotAnObjectWithAStringModel) {
  for (const char* body :
       {"", "xxxx", "[1]", R"({"model":1})", R"({"model":null})", R"({"model":"cut)",
        R"({"model" "x"})", "{}", R"({"model":"\ud800"})", R"({"model":"\q"})"}) {
    EXPECT_EQ(whole(body), "") << body;
  }
  EXPECT_EQ(whole("{\"model\":\"" + std::string(129, 'm') + "\"}"), "");
  EXPECT_EQ(whole("{\"model\":\"" + std::string(128, 'm') + "\"}"), std::string(128, 'm'));
}

TEST(ModelFieldTest, GivesTheSameWhereverTheBodyIsCut) {
  const std::string body =
      "{\"p\":\"a\\\"b\\\\\",\"q\":[\"}\",{}],\"mod\\u0065l\":\"x\\u00e9y\",\"z\":0}";
  for (size_t i = 0; i <= body.size(); ++i) {
    for (size_t j = i; j <= body.size(); ++j) {
      ModelField field;
      field.feed(body.substr(0, i));
      field.feed(body.substr(i, j - i));
      field.feed(body.substr(j));
      ASSERT_EQ(field.value(), "x\xC3\xA9y") << i << ' ' << j;
    }
  }
}

}  // namespace
}  // namespace penstock::http
