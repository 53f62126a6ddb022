// Ends that a host has told a moment ago, and Redis has lost.
#include "worker/queue/shared_jobs/recent_ends.h"

#include <gtest/gtest.h>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

class RecentEndsTest : public testing::Test {
 protected:
  void tell(const std::string& id, std::string result = "answer") {
    ends_.add(id, 0, 'D', std::move(result), 0);
  }
  // They are said again, until Redis has heard all.
  void doubt() {
    ASSERT_TRUE(client_.until_ready());
    ends_.doubt();
    look("none");  // whose answer comes behind that to the states
    look("none");  // ... and behind what was said again
  }
  SharedOrder::Known look(std::string_view id) {
    return client_.get<SharedOrder::Known>([&](auto then) { return order_.look(id, 0, then); });
  }
  bool is_over(std::string_view id) { return look(id).state == SharedOrder::Known::State::kOver; }

  RedisServer server_;
  OrderClient client_{server_.socket()};
  SharedOrder order_{client_.servers(), {.name = "q", .max_length = 100}, 60'000};
  RecentEnds ends_{"q", order_};
};

TEST_F(RecentEndsTest, WhatRedisHasLostIsSaidAgainAsItWas) {
  tell("1", "one");
  tell("2", "two");
  doubt();
  EXPECT_EQ(look("1").result, "one");
  EXPECT_EQ(look("2").result, "two");
  EXPECT_EQ(look("2").how, 'D');
}

TEST_F(RecentEndsTest, MoreThanOneRequestHoldsAreAllLookedFor) {
  for (size_t i = 0; i <= 2 * RecentEnds::kMostAsked; ++i) {
    tell(std::to_string(i));
  }
  doubt();
  for (const size_t i : {size_t{0}, RecentEnds::kMostAsked - 1, RecentEnds::kMostAsked,
                         2 * RecentEnds::kMostAsked}) {
    EXPECT_TRUE(is_over(std::to_string(i))) << i;
  }
}

TEST_F(RecentEndsTest, BeyondTheirNumberTheOldestAreForgotten) {
  for (size_t i = 0; i <= RecentEnds::kMost; ++i) {
    tell(std::to_string(i), {});
  }
  doubt();
  EXPECT_FALSE(is_over("0"));
  EXPECT_TRUE(is_over("1"));
  EXPECT_TRUE(is_over(std::to_string(RecentEnds::kMost)));
}

TEST_F(RecentEndsTest, BeyondTheirBytesTheOldestAreForgotten) {
  const std::string large(RecentEnds::kMostBytes / 4, 'x');
  for (int i = 0; i < 6; ++i) {
    tell(std::to_string(i), large);
  }
  doubt();
  EXPECT_FALSE(is_over("0"));
  EXPECT_FALSE(is_over("1"));
  EXPECT_TRUE(is_over("2"));
  EXPECT_TRUE(is_over("5"));
}

}  // namespace
}  // namespace penstock::queue
