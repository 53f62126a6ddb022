#include "worker/queue/shared_jobs/redis_memory.h"

#include <gtest/gtest.h>

#include "shared/redis/answer.h"

namespace penstock::queue {
namespace {

TEST(RedisMemoryTest, IsTheShareOfWhatMayBeTaken) {
  EXPECT_DOUBLE_EQ(
      share_taken("# Memory\r\nused_memory:90\r\nused_memory_rss:5\r\nmaxmemory:100\r\n"
                  "maxmemory_human:100B\r\nmem_not_counted_for_evict:0\r\n"),
      0.9);
}

TEST(RedisMemoryTest, BuffersDoNotCount) {
  EXPECT_DOUBLE_EQ(
      share_taken("used_memory:90\r\nmaxmemory:100\r\nmem_not_counted_for_evict:40\r\n"), 0.5);
}

TEST(RedisMemoryTest, WithoutABoundNothingIsTaken) {
  EXPECT_DOUBLE_EQ(share_taken("used_memory:90\r\nmaxmemory:0\r\n"), 0);
  EXPECT_DOUBLE_EQ(share_taken(""), 0);
  EXPECT_DOUBLE_EQ(share_taken("used_memory:\r\nmaxmemory:x\r\n\r\n:"), 0);
}

TEST(RedisMemoryTest, ALineIsFoundByItsWholeName) {
  constexpr char kInfo[] = "a_used_memory:1\nused_memory_peak:2\r\nused_memory:3";
  EXPECT_EQ(redis::info_of(kInfo, "used_memory"), "3");
  EXPECT_EQ(redis::info_of(kInfo, "memory"), "");
}

}  // namespace
}  // namespace penstock::queue
