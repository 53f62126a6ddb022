#include "worker/queue/bound/turns.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <list>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/bound/budget.h"

namespace penstock::queue {
namespace {

// A device, and workers on it that have jobs of one length waiting whenever they say so.
class TurnsTest : public testing::Test {
 protected:
  struct Worker {
    Budget budget;
    int64_t takes_ns = kNsPerMs;
    int64_t priority = 0;
    bool has_jobs = true;
    int64_t arrived_ns = 0;
    int64_t aging_ns = 0;
    uint32_t busy = 0;
    uint32_t slots = 1;
    int64_t given_ns = 0;  // of the device's time
    int given = 0;
  };
  Worker& add(int64_t takes_ns) {
    Worker& worker = workers_.emplace_back();
    worker.budget.parent = &device_;
    worker.takes_ns = takes_ns;
    return worker;
  }
  // Gives the next slot; time goes on by what the job takes.
  Worker& turn() {
    std::vector<Bid> bids;
    std::vector<Worker*> bidders;
    for (Worker& worker : workers_) {
      if (worker.has_jobs) {
        bidders.push_back(&worker);
        bids.push_back({.worker = &worker.budget,
                        .priority = worker.priority,
                        .arrived_ns = worker.arrived_ns,
                        .aging_ns = worker.aging_ns,
                        .busy = worker.busy,
                        .slots = worker.slots});
      }
    }
    Worker& next = *bidders[next_turn(bids, now_ns_)];
    take_turn(next.budget, next.priority, next.takes_ns, now_ns_);
    now_ns_ += next.takes_ns;
    next.given_ns += next.takes_ns;
    ++next.given;
    return next;
  }

  Budget device_{.slots = 1};
  std::list<Worker> workers_;
  int64_t now_ns_ = kNsPerSec;
};

TEST_F(TurnsTest, EachGetsTheSamePartOfTheDeviceHoweverLongItsJobsTake) {
  const Worker& image = add(60 * kNsPerMs);
  const Worker& text = add(20 * kNsPerMs);
  const Worker& video = add(7 * kNsPerSec);
  for (int i = 0; i < 10'000; ++i) {
    turn();
    EXPECT_LE(std::abs(image.given_ns - text.given_ns), 80 * kNsPerMs);
    EXPECT_LE(std::abs(image.given_ns - video.given_ns), 7060 * kNsPerMs);
  }
}

TEST_F(TurnsTest, AJobIsChargedWhatItTookWhateverWasExpected) {
  Worker& known = add(20 * kNsPerMs);
  Worker& fresh = add(20 * kNsPerMs);
  known.has_jobs = false;
  turn();
  settle_turn(fresh.budget, 0, fresh.takes_ns, 290 * kNsPerMs);
  known.has_jobs = true;
  for (int i = 0; i < 13; ++i) {
    EXPECT_EQ(&turn(), &known) << i;
  }
  const int64_t charged_ns = take_turn(known.budget, 0, kUnknownJobNs, now_ns_);
  settle_turn(known.budget, 0, charged_ns, 40 * kNsPerMs);
  EXPECT_EQ(&turn(), &fresh);
  EXPECT_EQ(&turn(), &known);
}

TEST_F(TurnsTest, WhoHadNothingToDoIsOwedNothing) {
  Worker& idle = add(20 * kNsPerMs);
  const Worker& busy = add(20 * kNsPerMs);
  idle.has_jobs = false;
  for (int i = 0; i < 1000; ++i) {
    turn();
  }
  idle.has_jobs = true;
  for (int i = 0; i < 10; ++i) {
    turn();
  }
  EXPECT_NEAR(idle.given, 5, 1);
  EXPECT_EQ(idle.given + busy.given, 1010);
}

TEST_F(TurnsTest, AHigherClassGoesFirstAndWhoWasPassedOverIsOwedNothingForIt) {
  Worker& high = add(20 * kNsPerMs);
  const Worker& low = add(20 * kNsPerMs);
  high.priority = 10;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(&turn(), &high);
  }
  high.priority = 0;
  for (int i = 0; i < 10; ++i) {
    turn();
  }
  EXPECT_NEAR(low.given, 5, 1);
}

TEST_F(TurnsTest, WhatAHigherClassTakesLeavesTheOthersTheirEqualParts) {
  Worker& high = add(kNsPerSec);
  const Worker& first = add(kNsPerSec);
  const Worker& second = add(100 * kNsPerSec);
  high.priority = 10;
  for (int i = 0; i < 100'000; ++i) {
    high.has_jobs = i % 2 == 0;
    turn();
  }
  EXPECT_NEAR(static_cast<double>(first.given_ns), static_cast<double>(second.given_ns), 1.01e11);
  EXPECT_GT(second.given, 100);
}

TEST_F(TurnsTest, WhatIsChargedIsGivenBackThoughTheDeviceHasMoreSlotsByThen) {
  Budget& worker = add(kNsPerMs).budget;
  const int64_t charged_ns = take_turn(worker, 3, 3600 * kNsPerSec, now_ns_);
  device_.slots = 8;
  settle_turn(worker, 3, charged_ns, 0);
  EXPECT_TRUE(worker.tags.by_class.empty());
}

TEST_F(TurnsTest, ClassesThatNeverEndAreForgotten) {
  Budget& worker = add(kNsPerMs).budget;
  for (int64_t priority = 0; priority < 10'000; ++priority) {
    take_turn(worker, priority, kNsPerMs, now_ns_);
  }
  EXPECT_LE(worker.tags.by_class.size(), kMostTurnClasses);
  EXPECT_LE(device_.tags.by_class.size(), kMostTurnClasses);
}

TEST_F(TurnsTest, ALowerClassIsLetBeforeOnceItHasWaitedAndNotTooOften) {
  Worker& high = add(20 * kNsPerMs);
  Worker& low = add(20 * kNsPerMs);
  high.priority = 10;
  low.aging_ns = kNsPerSec;
  low.arrived_ns = now_ns_;
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(&turn(), &high) << i;
  }
  EXPECT_EQ(&turn(), &low);
  for (int i = 0; i < 49; ++i) {
    EXPECT_EQ(&turn(), &high) << "it has waited since it was given one, not since it came";
  }
  EXPECT_EQ(&turn(), &low);
  high.takes_ns = 10 * kNsPerSec;
  for (uint64_t i = 0; i < kTurnsPerPromotion; ++i) {
    EXPECT_EQ(&turn(), &high) << "so long jobs are not outnumbered";
  }
  EXPECT_EQ(&turn(), &low);
}

TEST_F(TurnsTest, OfOneClassNobodyIsLetBefore) {
  Worker& text = add(20 * kNsPerMs);
  const Worker& video = add(7 * kNsPerSec);
  text.aging_ns = kNsPerSec;
  text.arrived_ns = now_ns_;
  while (video.given < 100) {
    turn();
  }
  EXPECT_NEAR(static_cast<double>(text.given_ns), static_cast<double>(video.given_ns), 7e9);
}

TEST_F(TurnsTest, BetweenEqualsTheProcessGoesWhoseSlotsAreTheLeastUsed) {
  Budget worker{.parent = &device_};
  const std::array bids{Bid{.worker = &worker, .busy = 2, .slots = 4},
                        Bid{.worker = &worker, .busy = 1, .slots = 4},
                        Bid{.worker = &worker, .busy = 3, .slots = 16}};
  EXPECT_EQ(next_turn(bids, now_ns_), 2U);
}

TEST_F(TurnsTest, ManySlotsDoNotWearTheTagsOut) {
  device_.slots = 100'000;
  Worker& worker = add(3600 * kNsPerSec);
  add(kNsPerSec).has_jobs = false;
  for (int i = 0; i < 100'000; ++i) {
    take_turn(worker.budget, 0, worker.takes_ns, now_ns_);
  }
  EXPECT_EQ(worker.budget.tags.by_class.at(0), 3600 * kNsPerSec) << "the tags keep to real time";
}

}  // namespace
}  // namespace penstock::queue
