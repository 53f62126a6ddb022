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
  std::string last;
  for (const int64_t ms : {1'000, 1'000, 1'001, 1'001, 900, 1'002}) {  // the clock is stepped back
    const std::string id(maker.make(ms).view());
    EXPECT_LT(last, id);
    last = id;
  }
}

TEST(JobIdTest, GoesOnAfterTheLatestOfAnEarlierLife) {
  JobIdMaker earlier;
  const JobId last = earlier.make(5'000);
  JobIdMaker maker;
  maker.start_after(last);
  EXPECT_LT(last.view(), maker.make(1'000).view());
}

TEST(JobIdTest, AnEarlierOneOfTheSameMillisecondTakesNothingBack) {
  JobIdMaker maker;
  const JobId first = maker.make(5'000);
  const JobId second = maker.make(5'000);
  maker.start_after(first);
  EXPECT_LT(second.view(), maker.make(5'000).view());
}

TEST(JobIdTest, HasANumberOfItsOwn) {
  JobIdMaker maker;
  uint64_t last = 0;
  for (int i = 0; i < 100'000; ++i) {  // more than one millisecond has room for
    const JobId id = maker.make(1'763'780'000'123);
    EXPECT_GT(sequence_of(id), last);
    last = sequence_of(id);
    EXPECT_GE(created_ms(id), 1'763'780'000'123);
    EXPECT_LE(created_ms(id), 1'763'780'000'126);
  }
}

TEST(JobIdTest, IsItsBitsWrittenOut) {
  const std::string text = "job_7ZZZZZZZZZZZZG0123456789AB";
  const Ulid ulid = ulid_of(*parse_job_id(text));
  EXPECT_EQ(ulid.high, UINT64_MAX);
  EXPECT_EQ(id_of(ulid).view(), text);
  EXPECT_EQ(id_of({1, 2}).view(), "job_0000000000000G000000000002");
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
