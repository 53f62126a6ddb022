#include "worker/queue/fair_share.h"

#include <gtest/gtest.h>

namespace penstock::queue {
namespace {

constexpr uint64_t kUnit = 65536;

TEST(FairShareTest, AnOwnersJobsFollowEachOtherByCostPerWeight) {
  FairShare share;
  EXPECT_EQ(share.arrive(1, 6, 2).start, 0U);
  EXPECT_EQ(share.arrive(1, 10, 2).start, 3 * kUnit);
  EXPECT_EQ(share.next_start(1), 8 * kUnit);
  EXPECT_EQ(share.arrive(2, 1, 1).start, 0U);
}

TEST(FairShareTest, NewcomersBeginAtTheJobLastTaken) {
  FairShare share;
  share.arrive(1, 5, 1);
  share.take(share.arrive(1, 5, 1));
  EXPECT_EQ(share.next_start(2), 5 * kUnit);
  EXPECT_EQ(share.arrive(2, 1, 1).start, 5 * kUnit);
}

TEST(FairShareTest, WhatADivisionLeavesIsNotLost) {
  FairShare share;
  FairShare::Tags tags;
  for (int i = 0; i < 3000; ++i) {
    tags = share.arrive(1, 1, 3000);  // 21.8 units of a tag each
  }
  EXPECT_EQ(tags.end, kUnit);
}

TEST(FairShareTest, CostsAndWeightsAreCutToTheirBounds) {
  FairShare share;
  EXPECT_EQ(share.arrive(1, 0, 0).end, kUnit);
  EXPECT_EQ(share.arrive(2, UINT64_MAX, 1).end, FairShare::kMaxCost * kUnit);
  EXPECT_EQ(share.arrive(3, 1, UINT64_MAX).end, 1U);
}

TEST(FairShareTest, TagsStopRatherThanTurnAround) {
  FairShare share;
  share.raise(INT64_MAX - 10);
  share.arrive(1, FairShare::kMaxCost, 1);
  EXPECT_EQ(share.arrive(1, FairShare::kMaxCost, 1).start, static_cast<uint64_t>(INT64_MAX));
}

TEST(FairShareTest, WhatAnOwnerTookBackIsNotCharged) {
  FairShare share;
  const auto other = share.arrive(9, 1, 1);
  for (int i = 0; i < 5; ++i) {
    const auto tags = share.arrive(1, 100, 1);
    share.withdraw(tags);
    share.leave(tags);
  }
  EXPECT_EQ(share.next_start(1), 0U);
  const auto served = share.arrive(1, 100, 1);
  const auto dropped = share.arrive(1, 100, 1);
  share.take(served);
  share.withdraw(dropped);
  EXPECT_EQ(share.next_start(1), 100 * kUnit);
  share.withdraw(other);
}

TEST(FairShareTest, AnOwnerIsForgottenOnceVirtualTimeHasPassedIt) {
  FairShare share;
  const auto brief = share.arrive(1, 10, 1);
  const auto steady = share.arrive(2, 30, 1);
  const auto next = share.arrive(2, 30, 1);
  share.take(brief);
  share.leave(brief);
  share.take(steady);
  EXPECT_EQ(share.owners(), 2U);  // owes 10 still
  EXPECT_EQ(share.next_start(1), 10 * kUnit);
  share.take(next);  // virtual time: 30
  EXPECT_EQ(share.owners(), 1U);
  EXPECT_EQ(share.next_start(1), 30 * kUnit);
}

TEST(FairShareTest, WithItsLastJobAClassForgetsEverything) {
  FairShare share;
  const auto tags = share.arrive(1, 10, 1);
  share.take(tags);
  share.leave(tags);
  EXPECT_TRUE(share.empty());
  EXPECT_EQ(share.owners(), 0U);
  EXPECT_EQ(share.virtual_time(), 0U);
}

TEST(FairShareTest, OwnersThatComeOnceAndNeverAgainAreBounded) {
  FairShare share;
  share.arrive(0, 1, 1);  // never empty
  for (uint64_t owner = 1; owner < 3 * FairShare::kMaxIdle; ++owner) {
    const auto tags = share.arrive(owner, 1 + owner % 7, 1);
    share.take(tags);
    share.leave(tags);
  }
  EXPECT_LE(share.owners(), FairShare::kMaxIdle + 1);
}

}  // namespace
}  // namespace penstock::queue
