#include "worker/queue/order/fair_share.h"

#include <gtest/gtest.h>

#include "worker/queue/order/owners.h"

namespace penstock::queue {
namespace {

constexpr uint64_t kUnit = 65536;

class FairShareTest : public testing::Test {
 protected:
  FairShare::Tags arrive(uint64_t owner, uint64_t cost, uint64_t weight) {
    return share.arrive(owners[owner], cost, weight);
  }
  uint64_t next_start(uint64_t owner) const { return share.next_start(owners.find(owner)); }

  Owners owners;
  FairShare share{owners};
};

TEST_F(FairShareTest, AnOwnersJobsFollowEachOtherByCostPerWeight) {
  EXPECT_EQ(arrive(1, 6, 2).start, 0U);
  EXPECT_EQ(arrive(1, 10, 2).start, 3 * kUnit);
  EXPECT_EQ(next_start(1), 8 * kUnit);
  EXPECT_EQ(arrive(2, 1, 1).start, 0U);
}

TEST_F(FairShareTest, NewcomersBeginAtTheJobLastTaken) {
  arrive(1, 5, 1);
  share.take(arrive(1, 5, 1));
  EXPECT_EQ(next_start(2), 5 * kUnit);
  EXPECT_EQ(arrive(2, 1, 1).start, 5 * kUnit);
}

TEST_F(FairShareTest, WhatADivisionLeavesIsNotLost) {
  FairShare::Tags tags;
  for (int i = 0; i < 3000; ++i) {
    tags = arrive(1, 1, 3000);  // 21.8 units of a tag each
  }
  EXPECT_EQ(tags.end, kUnit);
}

TEST_F(FairShareTest, CostsAndWeightsAreCutToTheirBounds) {
  EXPECT_EQ(arrive(1, 0, 0).end, kUnit);
  EXPECT_EQ(arrive(2, UINT64_MAX, 1).end, FairShare::kMaxCost * kUnit);
  EXPECT_EQ(arrive(3, 1, UINT64_MAX).end, 1U);
}

TEST_F(FairShareTest, TagsStopRatherThanTurnAround) {
  share.raise(INT64_MAX - 10);
  arrive(1, FairShare::kMaxCost, 1);
  EXPECT_EQ(arrive(1, FairShare::kMaxCost, 1).start, static_cast<uint64_t>(INT64_MAX));
}

TEST_F(FairShareTest, WhatAnOwnerTookBackIsNotCharged) {
  const auto other = arrive(9, 1, 1);
  for (int i = 0; i < 5; ++i) {
    const auto tags = arrive(1, 100, 1);
    share.withdraw(tags);
    share.leave(tags);
  }
  EXPECT_EQ(next_start(1), 0U);
  const auto served = arrive(1, 100, 1);
  const auto dropped = arrive(1, 100, 1);
  share.take(served);
  share.withdraw(dropped);
  EXPECT_EQ(next_start(1), 100 * kUnit);
  share.withdraw(other);
}

TEST_F(FairShareTest, AnOwnerIsForgottenOnceVirtualTimeHasPassedIt) {
  const auto brief = arrive(1, 10, 1);
  const auto steady = arrive(2, 30, 1);
  const auto next = arrive(2, 30, 1);
  share.take(brief);
  share.leave(brief);
  share.take(steady);
  EXPECT_EQ(share.flows(), 2U);  // owes 10 still
  EXPECT_EQ(next_start(1), 10 * kUnit);
  share.take(next);  // virtual time: 30
  EXPECT_EQ(share.flows(), 1U);
  EXPECT_EQ(next_start(1), 30 * kUnit);
}

TEST_F(FairShareTest, WithItsLastJobAClassForgetsEverything) {
  const auto tags = arrive(1, 10, 1);
  share.take(tags);
  share.leave(tags);
  EXPECT_TRUE(share.empty());
  EXPECT_EQ(owners.size(), 0U);
  EXPECT_EQ(share.flows(), 0U);
  EXPECT_EQ(share.virtual_time(), 0U);
}

TEST_F(FairShareTest, AnOwnerMayMatterInSeveralClassesAndIsForgottenByEachAlone) {
  FairShare other(owners);
  const auto here = arrive(1, 10, 1);
  const auto there = other.arrive(owners[1], 30, 1);
  EXPECT_EQ(&here.flow->owner(), &there.flow->owner());
  EXPECT_EQ(next_start(1), 10 * kUnit);
  EXPECT_EQ(other.next_start(owners.find(1)), 30 * kUnit);
  share.withdraw(here);
  share.leave(here);
  EXPECT_EQ(share.flows(), 0U);
  EXPECT_EQ(other.next_start(owners.find(1)), 30 * kUnit);
  other.withdraw(there);
  other.leave(there);
  EXPECT_EQ(owners.find(1), nullptr);
}

TEST_F(FairShareTest, OwnersThatComeOnceAndNeverAgainAreBounded) {
  arrive(0, 1, 1);  // never empty
  for (uint64_t owner = 1; owner < 3 * FairShare::kMaxIdle; ++owner) {
    const auto tags = arrive(owner, 1 + owner % 7, 1);
    share.take(tags);
    share.leave(tags);
  }
  EXPECT_LE(share.flows(), FairShare::kMaxIdle + 1);
}

}  // namespace
}  // namespace penstock::queue
