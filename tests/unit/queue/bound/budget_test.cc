#include "worker/queue/bound/budget.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

namespace penstock::queue {
namespace {

class Recorder : public Seat::Claimant {
 public:
  void on_granted(uint64_t job, int64_t bytes) override { granted.emplace_back(job, bytes); }
  std::vector<std::pair<uint64_t, int64_t>> granted;
};
using Granted = std::vector<std::pair<uint64_t, int64_t>>;

// A device of 4 slots and 100 bytes, with workers a (3 slots, 60 bytes) and b (4, 100).
class BudgetTest : public testing::Test {
 protected:
  Budget device_{.name = "device 0", .slots = 4, .memory_bytes = 100};
  Budget a_{.name = "worker a", .slots = 3, .memory_bytes = 60, .parent = &device_};
  Budget b_{.name = "worker b", .slots = 4, .memory_bytes = 100, .parent = &device_};
  Claims claims_;
  Recorder told_;
};

TEST_F(BudgetTest, SlotsAreThoseOfTheTightestBudget) {
  Seat a(a_, claims_);
  Seat again(a_, claims_);
  Seat b(b_, claims_);
  a.take_slot();
  again.take_slot();
  EXPECT_EQ(a.free_slots(), 1U);
  EXPECT_EQ(b.free_slots(), 2U);
  a.take_slot();
  EXPECT_EQ(again.free_slots(), 0U);
  b.take_slot();
  EXPECT_EQ(b.free_slots(), 0U);
  again.return_slots(7);  // more than it has counts as what it has
  EXPECT_EQ(device_.busy, 3U);
  EXPECT_EQ(b.free_slots(), 1U);
}

TEST_F(BudgetTest, WhatADeadProcessHeldIsFreeOnceItIsReaped) {
  auto a = std::make_unique<Seat>(a_, claims_);
  Seat b(b_, claims_);
  a->take_slot();
  a->claim(1, 50, told_);
  b.claim(2, 60, told_);
  EXPECT_EQ(told_.granted, (Granted{{1, 50}}));
  a->withdraw_all();  // its connection closed
  EXPECT_EQ(device_.held_bytes, 50);
  EXPECT_EQ(device_.busy, 1U);
  a.reset();
  EXPECT_EQ(told_.granted, (Granted{{1, 50}, {2, 60}}));
  EXPECT_EQ(device_.busy, 0U);
}

TEST_F(BudgetTest, MemoryIsGrantedInTheOrderItWasAskedFor) {
  Seat b(b_, claims_);
  b.claim(1, 70, told_);
  b.claim(2, 50, told_);
  b.claim(3, 10, told_);  // would fit, and waits for its turn
  EXPECT_EQ(told_.granted, (Granted{{1, 70}}));
  b.return_bytes(70);
  EXPECT_EQ(told_.granted, (Granted{{1, 70}, {2, 50}, {3, 10}}));
}

TEST_F(BudgetTest, OnlyWhatAWorkersOwnBudgetHoldsUpLetsOthersPass) {
  Seat a(a_, claims_);
  Seat b(b_, claims_);
  a.claim(1, 50, told_);
  a.claim(2, 20, told_);  // 70 of a's 60
  a.claim(3, 5, told_);   // behind it
  b.claim(4, 30, told_);  // a is not in its way
  EXPECT_EQ(told_.granted, (Granted{{1, 50}, {4, 30}}));
  b.claim(5, 30, told_);  // 110 of the device's 100: everybody waits behind this one
  b.claim(6, 1, told_);
  a.withdraw(2);
  EXPECT_EQ(told_.granted, (Granted{{1, 50}, {4, 30}, {3, 5}})) << "3 came before 5";
  b.withdraw(5);
  EXPECT_EQ(told_.granted.back(), (std::pair<uint64_t, int64_t>{6, 1}));
}

TEST_F(BudgetTest, AReservationIsHeldForLife) {
  {
    Seat a(a_, claims_);
    a.reserve(60);
    EXPECT_FALSE(a_.has_room(1));
    EXPECT_TRUE(b_.has_room(40));
    EXPECT_FALSE(b_.has_room(41));
  }
  EXPECT_TRUE(b_.has_room(100));
}

TEST_F(BudgetTest, WithoutABoundEverythingIsGranted) {
  Budget free{.slots = 1};
  Seat seat(free, claims_);
  seat.claim(1, INT64_MAX / 2, told_);
  seat.claim(2, INT64_MAX / 2, told_);
  EXPECT_EQ(told_.granted.size(), 2U);
}

// Whatever comes and goes, no bound is passed, nothing is lost, and nobody waits for ever.
TEST_F(BudgetTest, NoHistoryPassesABound) {
  std::mt19937 random(7);
  const auto up_to = [&](uint32_t most) { return random() % (most + 1); };
  struct Life {
    std::unique_ptr<Seat> seat;
    Recorder told;
    uint64_t next_job = 1;
    int64_t returned = 0;
  };
  std::vector<std::unique_ptr<Life>> lives;
  for (int step = 0; step < 100'000; ++step) {
    if (lives.size() < 6 && up_to(20) == 0) {
      auto& life = lives.emplace_back(std::make_unique<Life>());
      life->seat = std::make_unique<Seat>(up_to(1) == 0 ? a_ : b_, claims_);
    }
    if (lives.empty()) {
      continue;
    }
    auto& at = lives[up_to(static_cast<uint32_t>(lives.size() - 1))];
    switch (up_to(6)) {
      case 0:
        if (at->seat->free_slots() > 0) {
          at->seat->take_slot();
        }
        break;
      case 1:
        at->seat->return_slots(up_to(2));
        break;
      case 2:
        at->seat->claim(at->next_job++, 1 + up_to(59), at->told);
        break;
      case 3:
        at->seat->withdraw(1 + up_to(static_cast<uint32_t>(at->next_job)));
        break;
      case 4:
        at->seat->return_bytes(up_to(60));
        break;
      default:
        if (up_to(30) == 0) {
          std::swap(at, lives.back());
          lives.pop_back();
        }
    }
    uint32_t busy = 0;
    int64_t held = 0;
    for (const auto& life : lives) {
      busy += life->seat->busy();
      held += life->seat->held_bytes();
    }
    ASSERT_EQ(device_.busy, busy);
    ASSERT_EQ(device_.held_bytes, held);
    ASSERT_LE(device_.busy, device_.slots);
    ASSERT_LE(device_.held_bytes, device_.memory_bytes);
    ASSERT_LE(a_.busy, a_.slots);
    ASSERT_LE(a_.held_bytes, a_.memory_bytes);
    ASSERT_TRUE(device_.held_bytes > 0 || claims_.waiting() == 0) << "all is free, and they wait";
  }
  lives.clear();
  EXPECT_EQ(device_.busy + device_.held_bytes + a_.busy + b_.busy, 0);
}

}  // namespace
}  // namespace penstock::queue
