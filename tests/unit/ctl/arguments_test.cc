#include "worker/ctl/arguments.h"

#include <gtest/gtest.h>

#include "worker/ctl/command.h"

namespace penstock::ctl {
namespace {

constexpr Flag kFlags[] = {{"json", 0, "", ""}, {"socket", 's', "SOCKET", ""}};

Result<Arguments> parse(std::vector<const char*> typed) { return Arguments::parse(typed, kFlags); }

TEST(ArgumentsTest, OptionsMayStandAnywhereAndTakeValuesInFourWays) {
  for (const auto& typed : {std::vector<const char*>{"a", "--socket", "S", "b", "--json"},
                            {"--json", "--socket=S", "a", "b"},
                            {"a", "b", "-s", "S", "--json"},
                            {"-sS", "a", "--json", "b"}}) {
    const auto arguments = parse(typed);
    ASSERT_TRUE(arguments) << arguments.error().message;
    EXPECT_EQ(arguments->words(), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(arguments->value("socket"), "S");
    EXPECT_TRUE(arguments->has("json"));
  }
}

TEST(ArgumentsTest, ADashAloneIsAWordAndSoIsAllAfterTwo) {
  EXPECT_EQ(parse({"-", "--", "--json", "-s"})->words(),
            (std::vector<std::string>{"-", "--json", "-s"}));
}

TEST(ArgumentsTest, ValuesMayBeEmptyOrLookLikeOptions) {
  EXPECT_EQ(parse({"--socket="})->value("socket", "other"), "");
  EXPECT_EQ(parse({"--socket", "--json"})->value("socket"), "--json");
  EXPECT_EQ(parse({})->value("socket", "other"), "other");
}

TEST(ArgumentsTest, WhatIsWrongIsNamed) {
  EXPECT_EQ(parse({"--jsno"}).error().message, "there is no option --jsno");
  EXPECT_EQ(parse({"-xyz"}).error().message, "there is no option -x");
  EXPECT_EQ(parse({"--"})->words().size(), 0U);
  EXPECT_EQ(parse({"--json=yes"}).error().message, "--json takes no value");
  EXPECT_EQ(parse({"--socket"}).error().message, "--socket lacks its SOCKET");
  EXPECT_EQ(parse({"-s", "a", "--socket=b"}).error().message, "--socket was given twice");
}

TEST(CommandsTest, EachIsToldOfByTheUsage) {
  for (const Command& command : commands()) {
    EXPECT_NE(usage().find("\n  " + std::string(command.name)), std::string::npos);
    for (const Flag& flag : command.flags) {
      EXPECT_NE(usage(command).find("--" + std::string(flag.name)), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace penstock::ctl
