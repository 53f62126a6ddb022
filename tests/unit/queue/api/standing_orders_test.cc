#include "worker/queue/api/standing_orders.h"

#include "tests/unit/queue/jobs/promise_fixture.h"

namespace penstock::queue {
namespace {

class StandingOrdersTest : public PromiseTest {
 protected:
  // In another life of penstockd.
  StandingOrders::Found recover(uint64_t file) {
    store_.reset();
    store_ = *Store::open({.folder = folder_ + "/state"});
    orders_ = StandingOrders(store_.get());
    auto found = orders_.recover(file);
    EXPECT_TRUE(found);
    return *found;
  }
  StandingOrders orders_{nullptr};
};

TEST_F(StandingOrdersTest, WhatIsPausedAndScaledHoldsInTheNextLife) {
  recover(7);
  orders_.paused("default", true);
  orders_.paused("video", true);
  orders_.paused("video", false);
  orders_.scaled("demo", 3);
  const auto found = recover(7);
  EXPECT_EQ(found.paused, std::vector<std::string>{"default"});
  EXPECT_EQ(found.scaled, (std::map<std::string, uint32_t>{{"demo", 3}}));
  EXPECT_FALSE(found.forgotten);
}

TEST_F(StandingOrdersTest, AFileThatWasChangedWins) {
  recover(7);
  orders_.paused("default", true);
  const auto found = recover(8);
  EXPECT_TRUE(found.paused.empty());
  EXPECT_TRUE(found.forgotten) << "it is said";
  EXPECT_FALSE(recover(8).forgotten) << "once";
}

TEST_F(StandingOrdersTest, AFileThatWasReloadedHasTheOrdersHoldOn) {
  recover(7);
  orders_.paused("default", true);
  orders_.reloaded(8);
  EXPECT_EQ(recover(8).paused.size(), 1U);
}

TEST_F(StandingOrdersTest, WithoutAStoreNothingIsKept) {
  StandingOrders none(nullptr);
  none.paused("default", true);
  EXPECT_TRUE(none.recover(1)->paused.empty());
}

}  // namespace
}  // namespace penstock::queue
