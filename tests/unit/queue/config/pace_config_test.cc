// limit, quota, concurrency and limit_key of a worker.
#include <gtest/gtest.h>

#include "worker/queue/config/load_config.h"
#include "worker/queue/config/pace_keys.h"

namespace penstock::queue {
namespace {

Result<Config> parsed(const std::string& workers) {
  return parse_config("socket: /s\nworkers:\n" + workers, "p.yaml");
}
std::string complaint(const std::string& keys) {
  const auto config = parsed("  - { name: a, engine: simulate, " + keys + " }\n");
  return config ? "" : config.error().message;
}

TEST(PaceConfigTest, ReadsWindowsThatSlideAndTheCalendars) {
  const auto config = parsed(
      "  - { name: a, engine: simulate, limit: [10r/120s, 200000t/m], quota: 1000r/d,"
      " concurrency: 8 }\n");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->workers[0].limit_key, "a");
  const PaceConfig* const pace = find_pace(*config, "a");
  ASSERT_NE(pace, nullptr);
  EXPECT_EQ(pace->at_once, 8U);
  const std::vector<PaceLimit> wanted = {
      {.amount = 10, .length_ns = 120 * kNsPerSec},
      {.unit = PaceLimit::Unit::kTokens, .amount = 200'000, .length_ns = 60 * kNsPerSec},
      {.amount = 1000, .calendar = limit::Span::day}};
  EXPECT_EQ(pace->limits, wanted);
}

TEST(PaceConfigTest, WorkersOfOneKeyShareWhatOneOfThemSays) {
  const auto config = parsed(
      "  - { name: a, engine: simulate, limit_key: paid }\n"
      "  - { name: b, engine: simulate, limit_key: paid, limit: 10r/s }\n"
      "  - { name: c, engine: simulate }\n");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->paces.size(), 1U);
  EXPECT_EQ(config->workers[0].limit_key, "paid");
  EXPECT_EQ(config->workers[2].limit_key, "");
}

TEST(PaceConfigTest, WhatIsWrongIsSaidWithItsLine) {
  EXPECT_EQ(complaint("limit: 10/s").find("p.yaml:3: key 'workers[0].limit': must be such as"), 0U);
  for (const char* const bad :
       {"limit: 0r/s", "limit: 10r/", "limit: 10r/0s", "limit: 10r", "limit: -1r/s", "limit: 10x/s",
        "limit: 2000000000r/s", "limit: 10r/40d", "limit: { a: b }", "quota: 10r/2d",
        "quota: 10r/x", "concurrency: 0", "limit: [1r/s, 2r/m, 3r/h, 4r/d, 5r/30d]",
        "limit_key: 'a b'"}) {
    EXPECT_NE(complaint(bad), "") << bad;
  }
  EXPECT_NE(complaint("limit_key: nobodys").find("no worker says the limit"), std::string::npos);
  const auto two = parsed(
      "  - { name: a, engine: simulate, limit_key: k, limit: 10r/s }\n"
      "  - { name: b, engine: simulate, limit_key: k, limit: 11r/s }\n");
  ASSERT_FALSE(two);
  EXPECT_NE(two.error().message.find("p.yaml:4: key 'workers[1].limit_key'"), std::string::npos);
}

}  // namespace
}  // namespace penstock::queue
