#include "shared/base/job_id.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace penstock {
namespace {

TEST(JobIdTest, IsJobAndTwentySixCrockfordCharacters) {
  JobIdMaker maker;
  const std::string id(maker.make(1'763'780'000'000).view());
  ASSERT_EQ(id.size(), 30U);
  EXPECT_EQ(id.substr(0, 4), "job_");
  EXPECT_EQ(id.find_first_not_of("0123456789ABCDEFGHJKMNPQRSTVWXYZ", 4), std::string::npos);
}

TEST(JobIdTest, BeginsWithTheTimeAsAUlidDoes) {
  JobIdMaker maker;
  // The ULID specification's own example: 1469918176385 ms is 01ARYZ6S41.
  EXPECT_EQ(maker.make(1'469'918'176'385).view().substr(4, 10), "01ARYZ6S41");
}

TEST(JobIdTest, SortsByAge) {
  JobIdMaker maker;
  EXPECT_LT(maker.make(1'000).view(), maker.make(1'001).view());
}

TEST(JobIdTest, NeverRepeatsWithinOneMillisecond) {
  JobIdMaker maker;
  std::set<std::string> seen;
  for (int i = 0; i < 5'000; ++i) {
    EXPECT_TRUE(seen.emplace(maker.make(1).view()).second);
  }
}

}  // namespace
}  // namespace penstock
