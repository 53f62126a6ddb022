#include "worker/ctl/limits_table.h"

#include <gtest/gtest.h>

namespace penstock::ctl {
namespace {

const std::string kLimits = R"({"key":"9f3a5c0b7d1e2f48","limits":[
  {"zone":"edge","name":"free-rate","unit":"requests","algorithm":"token_bucket","limit":10,"burst":5,
   "used":3,"remaining":2,"reset_seconds":41,"live":true},
  {"zone":"edge","name":"free-gpu","unit":"gpu_seconds","algorithm":"calendar","limit":600,
   "used":12.25,"remaining":587.75,"reset_seconds":41000,"live":true},
  {"zone":"edge","name":"site","unit":"concurrent","algorithm":"concurrency","limit":2000,"burst":null,
   "used":0,"remaining":2000,"reset_seconds":0,"live":false}]})";

std::string table(const std::string& json, bool all = false) {
  const auto text = limits_table(json, all);
  EXPECT_TRUE(text) << text.error().message;
  return text ? *text : "";
}

TEST(LimitsTableTest, ShowsLiveCountersOnly) {
  EXPECT_EQ(
      table(kLimits),
      "key 9f3a5c0b7d1e2f48\n\n"
      "ZONE  NAME       UNIT         ALGORITHM     USED   LIMIT  BURST  LEFT    RESETS IN\n"
      "edge  free-rate  requests     token_bucket  3      10     5      2       41 s\n"
      "edge  free-gpu   gpu_seconds  calendar      12.25  600    -      587.75  11 h 23 min\n");
}

TEST(LimitsTableTest, AllShowsThoseAtRestToo) {
  const std::string text = table(kLimits, true);
  EXPECT_NE(text.find("RESETS IN    LIVE\n"), std::string::npos) << text;
  EXPECT_NE(
      text.find("edge  site       concurrent   concurrency   0      2000   -      2000    -   "
                "         no\n"),
      std::string::npos)
      << text;
}

TEST(LimitsTableTest, SaysWhenNothingIsCounted) {
  const std::string nothing = "key 9f3a: nothing is counted for this key\n";
  EXPECT_EQ(table(R"({"key":"9f3a","limits":[]})"), nothing);
  EXPECT_EQ(table(R"({"key":"9f3a","limits":[{"name":"a","live":false}]})"), nothing);
}

TEST(LimitsTableTest, MembersThatAreMissingOrOddAreDashes) {
  EXPECT_EQ(table(R"({"limits":[{"name":["x"],"used":18446744073709551615}]})"),
            "key -\n\n"
            "ZONE  NAME  UNIT  ALGORITHM  USED         LIMIT  BURST  LEFT  RESETS IN\n"
            "-     -     -     -          1.84467e+19  -      -      -     -\n");
}

TEST(LimitsTableTest, NamesCannotSpeakToTheTerminal) {
  const std::string text = table(R"({"limits":[{"name":"\u001b[2Jé\u009b1m\n"}]})");
  EXPECT_NE(text.find("?[2Jé?1m?"), std::string::npos) << text;
}

TEST(LimitsTableTest, WhatIsNoAnswerOfAConsoleIsRefused) {
  for (const char* json : {"", "[]", "{}", "{\"limits\":5}", "{\"limits\":[]", "{\"limits\":[],}",
                           "{\"limits\":[01]}", "{\"limits\":[\"\xff\"]}"}) {
    const auto text = limits_table(json, false);
    ASSERT_FALSE(text) << json;
    EXPECT_NE(text.error().message.find("'limits'"), std::string::npos);
  }
  EXPECT_FALSE(reset_line(R"({"limits":[]})"));
  EXPECT_FALSE(offenders_table(R"({"limits":[]})"));
}

TEST(ResetLineTest, NamesWhatWasReset) {
  EXPECT_EQ(*reset_line(R"({"key":"9f3a","reset":["free-rate","ip"]})"),
            "key 9f3a: reset free-rate, ip\n");
  EXPECT_EQ(*reset_line(R"({"key":"9f3a","reset":[]})"),
            "key 9f3a: nothing was counted for this key\n");
}

TEST(OffendersTableTest, IsATableOrSaysThatNobodyWasRefused) {
  EXPECT_EQ(*offenders_table(R"({"offenders":[{"key":"9f3a","limit":"free-rate","refused":1234},
                                              {"key":"aa","limit":"ip","refused":7}]})"),
            "KEY   LIMIT      REFUSED\n"
            "9f3a  free-rate  1234\n"
            "aa    ip         7\n");
  EXPECT_EQ(*offenders_table(R"({"offenders":[]})"), "nobody was refused\n");
}

}  // namespace
}  // namespace penstock::ctl
