#include "worker/ctl/verbatim_json.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include "tests/unit/json_rules.h"

namespace penstock::ctl {
namespace {

TEST(VerbatimJsonTest, WhatTheGrammarHasIsTaken) {
  for (const auto* all : {&json_rules::kValid, &json_rules::kOpen}) {
    for (const std::string& text : *all) {
      const Status good = check_json(text);
      EXPECT_TRUE(good) << text.substr(0, 60) << ": " << good.error().message;
    }
  }
  EXPECT_TRUE(check_json(json_rules::nested(1000)));
}

TEST(VerbatimJsonTest, WhatItHasNotIsRefused) {
  for (const std::string& text : json_rules::kInvalid) {
    EXPECT_FALSE(check_json(text)) << text.substr(0, 60);
  }
  EXPECT_FALSE(check_json("\xEF\xBB\xBF[]")) << "a byte order mark is the file's, not JSON's";
}

// Each text with one byte replaced, taken out or put in: both take it, or neither, but for what
// simdjson keeps in 64 bits or makes text of.
TEST(VerbatimJsonTest, TakesAndRefusesWhatSimdjsonDoes) {
  constexpr std::string_view kBytes = "\"\\{}[],:01-+.eEutn \n\t\x01/\x80\xC3";
  simdjson::dom::parser parser;
  size_t taken = 0, tried = 0;
  const auto compare = [&](const std::string& text) {
    const auto error = parser.parse(text.data(), text.size()).error();
    const bool beyond = error == simdjson::NUMBER_ERROR || error == simdjson::STRING_ERROR;
    const bool ours = bool{check_json(text)};
    EXPECT_TRUE(ours == (error == simdjson::SUCCESS) || (ours && beyond))
        << text << ": " << ours << ", simdjson: " << simdjson::error_message(error);
    ++tried;
    taken += ours ? 1 : 0;
  };
  for (const auto* all : {&json_rules::kValid, &json_rules::kInvalid}) {
    for (const std::string& text : *all) {
      for (size_t at = 0; text.size() < 100 && at <= text.size(); ++at) {
        compare(std::string(text).erase(std::min(at, text.size() - 1), 1));
        for (const char c : kBytes) {
          compare(std::string(text).insert(at, 1, c));
          compare(std::string(text).replace(at, 1, 1, c));
        }
      }
    }
  }
  EXPECT_GT(taken, 1000U);
  EXPECT_GT(tried - taken, 10'000U);
}

TEST(VerbatimJsonTest, WhatIsWrongIsToldWithItsByte) {
  EXPECT_EQ(check_json("[1, 02]").error().message,
            "no comma or closing bracket behind an element at byte 5");
  EXPECT_EQ(check_json(R"({"a":"b)").error().message,
            "a string without its closing quote at byte 7");
  EXPECT_EQ(check_json("\"a\xFF\"").error().message, "bytes that are not UTF-8 at byte 2");
  EXPECT_EQ(check_json("[").error().message, "the end where a value should be at byte 1");
}

TEST(VerbatimJsonTest, MembersStandAsTheyWereWritten) {
  const std::string text =
      R"( { "n" : 18446744073709551616 , "x":[ 1e400 ,{"y" : 0.70000000000000000001}],"\u006e2":"a\ud83d\ude00\n" } )";
  const auto object = VerbatimObject::read(text);
  ASSERT_TRUE(object) << object.error().message;
  EXPECT_EQ((*object)["n"], "18446744073709551616");
  EXPECT_EQ(compact_json((*object)["x"]), R"([1e400,{"y":0.70000000000000000001}])");
  EXPECT_EQ(object->text("n2"), "a\xF0\x9F\x98\x80\n") << "names have escapes, too";
  EXPECT_EQ((*object)["y"], "") << "not at the top";
  EXPECT_EQ(object->text("n"), "") << "a number is no text";
  EXPECT_FALSE(VerbatimObject::read("[]"));
  EXPECT_FALSE(VerbatimObject::read("{\"a\":1"));
}

TEST(VerbatimJsonTest, OfSeveralMembersWithOneNameTheLastCounts) {
  EXPECT_EQ((*VerbatimObject::read(R"({"a":1,"b":2,"a":3})"))["a"], "3");
}

TEST(VerbatimJsonTest, HalfOfASurrogatePairIsNoText) {
  for (const char* text : {R"({"a":"\ud83d"})", R"({"a":"\ud83dx"})", R"({"a":"\ude00"})",
                           R"({"a":"\ud83d\n"})", R"({"a":"\ud83d\ud83d"})"}) {
    const auto object = VerbatimObject::read(text);
    ASSERT_TRUE(object) << text << " is JSON all the same";
    EXPECT_EQ(object->text("a"), "") << text;
  }
}

TEST(VerbatimJsonTest, WhiteSpaceInStringsIsKept) {
  EXPECT_EQ(compact_json("{ \"a b\" :\t\"c \\\" d\\\\\" ,\n\"e\": [ 1 ,\r\n2 ] }"),
            R"({"a b":"c \" d\\","e":[1,2]})");
}

}  // namespace
}  // namespace penstock::ctl
