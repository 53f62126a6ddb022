#include "worker/queue/order/scheduler.h"

#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "shared/base/clock.h"

namespace penstock::queue {
namespace {

using Ticket = Scheduler::Ticket;
using Cause = Scheduler::Cause;
using Outcome = Scheduler::Outcome;
using Admission = Scheduler::Admission;

class SchedulerTest : public testing::Test {
 protected:
  SchedulerTest() { set({}); }

  void set(Scheduler::QueueSettings settings) {
    settings.name = "default";
    queue_ = &scheduler_.set_queue(settings);
    demo_ = &scheduler_.lane(*queue_, "demo");
    other_ = &scheduler_.lane(*queue_, "other");
  }
  Ticket& add(Scheduler::Lane& lane, int64_t priority = 0) {
    return add(lane, Scheduler::Entry{.priority = priority});
  }
  Ticket& add(Scheduler::Lane& lane, const Scheduler::Entry& entry) {
    Ticket& ticket = tickets_.emplace_back();
    EXPECT_EQ(scheduler_.add(ticket, lane, entry, now_), Admission::kAdded);
    return ticket;
  }
  int64_t wait_ns(const Ticket& ticket) { return scheduler_.predicted_wait_ns(ticket, now_); }
  Ticket* take(Scheduler::Lane& lane) { return scheduler_.take(lane, now_); }
  std::vector<Scheduler::Expired> advance(int64_t ns) {
    now_ += ns;
    std::vector<Scheduler::Expired> expired;
    scheduler_.advance_to(now_, expired);
    return expired;
  }

  Scheduler scheduler_;
  Scheduler::Queue* queue_;
  Scheduler::Lane* demo_;
  Scheduler::Lane* other_;
  std::deque<Ticket> tickets_;
  int64_t now_ = 1000 * kNsPerSec;
};

TEST_F(SchedulerTest, TakesFirstInFirstOut) {
  Ticket& first = add(*demo_);
  Ticket& second = add(*demo_);
  EXPECT_EQ(take(*demo_), &first);
  EXPECT_EQ(take(*demo_), &second);
  EXPECT_EQ(take(*demo_), nullptr);
}

TEST_F(SchedulerTest, TakesHigherClassesFirst) {
  Ticket& low = add(*demo_, 0);
  Ticket& high = add(*demo_, 10);
  Ticket& lower = add(*demo_, -5);
  EXPECT_EQ(take(*demo_), &high);
  EXPECT_EQ(take(*demo_), &low);
  EXPECT_EQ(take(*demo_), &lower);
}

TEST_F(SchedulerTest, AWorkerTakesJobsOfItsModelAndThoseThatNameNone) {
  Ticket& others = add(*other_);
  Ticket& any = add(queue_->any_model());
  Ticket& own = add(*demo_);
  EXPECT_EQ(take(*demo_), &any);
  EXPECT_EQ(take(*demo_), &own);
  EXPECT_EQ(take(*demo_), nullptr);
  EXPECT_EQ(take(*other_), &others);
}

TEST_F(SchedulerTest, RefusesWhatComesToAFullQueueAndTakesAgainWhenAPlaceIsFree) {
  set({.max_length = 2});
  add(*demo_);
  add(*other_);
  Ticket extra;
  EXPECT_EQ(scheduler_.add(extra, *demo_, {.priority = 100}, now_), Admission::kQueueFull);
  EXPECT_EQ(extra.state(), Ticket::State::kUnknown);
  take(*demo_);
  EXPECT_EQ(scheduler_.add(extra, *demo_, {.priority = 100}, now_), Admission::kAdded);
  scheduler_.finish(extra, Outcome::kCancelled, now_);
}

TEST_F(SchedulerTest, AJobOfALostWorkerGoesBackToItsOldPlaceAtOnce) {
  set({.attempts = 3, .backoff_ns = kNsPerSec});
  Ticket& first = add(*demo_);
  add(*demo_);
  take(*demo_);
  EXPECT_EQ(scheduler_.position(first), 0U);
  EXPECT_TRUE(scheduler_.retry(first, Cause::kWorkerLost, now_));
  EXPECT_EQ(scheduler_.position(first), 1U);
  EXPECT_EQ(take(*demo_), &first);
}

TEST_F(SchedulerTest, FurtherFailuresBackOffEachTwiceAsLongLessAtMostHalf) {
  set({.attempts = 10, .backoff_ns = kNsPerSec});
  Ticket& job = add(*demo_);
  take(*demo_);
  for (const int64_t most_s : {1, 2, 4, 8}) {
    EXPECT_TRUE(scheduler_.retry(job, Cause::kJobFailed, now_));
    EXPECT_EQ(take(*demo_), nullptr);
    const int64_t wait_ns = scheduler_.next_event() - now_;
    EXPECT_GE(wait_ns, most_s * kNsPerSec / 2);
    EXPECT_LE(wait_ns, most_s * kNsPerSec);
    advance(wait_ns - 1);
    EXPECT_EQ(take(*demo_), nullptr);
    advance(1);
    EXPECT_EQ(take(*demo_), &job);
  }
}

TEST_F(SchedulerTest, JobsThatFailTogetherDoNotComeBackTogether) {
  set({.max_length = 1000, .attempts = 2, .backoff_ns = kNsPerSec});
  for (int i = 0; i < 1000; ++i) {
    add(*demo_);
  }
  for (Ticket& job : tickets_) {
    take(*demo_);
    scheduler_.retry(job, Cause::kJobFailed, now_);
  }
  advance(kNsPerSec / 2 - 1);
  for (int tenth = 0; tenth < 10; ++tenth) {
    advance(kNsPerSec / 20 + 1);
    int back = 0;
    while (take(*demo_) != nullptr) {
      ++back;
    }
    EXPECT_NEAR(back, 100, 35);
  }
}

TEST_F(SchedulerTest, TheSameSeedGivesTheSameBackOffs) {
  Scheduler same(7);
  Scheduler also(7);
  Scheduler other(8);
  std::vector<int64_t> due;
  for (Scheduler* const each : {&same, &also, &other}) {
    auto& lane =
        each->lane(each->set_queue({.name = "q", .attempts = 2, .backoff_ns = kNsPerSec}), "demo");
    Ticket& job = tickets_.emplace_back();
    each->add(job, lane, {}, now_);
    each->take(lane, now_);
    each->retry(job, Cause::kJobFailed, now_);
    due.push_back(each->next_event());
  }
  EXPECT_EQ(due[0], due[1]);
  EXPECT_NE(due[0], due[2]);
}

TEST_F(SchedulerTest, BackOffIsBoundedHoweverLongItsSetting) {
  set({.attempts = 100, .backoff_ns = INT64_MAX});
  Ticket& job = add(*demo_);
  take(*demo_);
  for (int failure = 0; failure < 40; ++failure) {
    ASSERT_TRUE(scheduler_.retry(job, Cause::kJobFailed, now_));
    ASSERT_LE(scheduler_.next_event(), now_ + Scheduler::kMaxBackoffNs);
    advance(Scheduler::kMaxBackoffNs);
    ASSERT_EQ(take(*demo_), &job);
  }
}

TEST_F(SchedulerTest, TheLastAttemptIsTheLast) {
  set({.attempts = 2});
  Ticket& job = add(*demo_);
  take(*demo_);
  EXPECT_TRUE(scheduler_.retry(job, Cause::kWorkerLost, now_));
  take(*demo_);
  EXPECT_FALSE(scheduler_.retry(job, Cause::kWorkerLost, now_));
  EXPECT_EQ(job.state(), Ticket::State::kUnknown);
  EXPECT_EQ(queue_->running, 0U);
  EXPECT_EQ(queue_->waiting, 0U);
}

TEST_F(SchedulerTest, WaitingDelayedAndRunningJobsAllEndAtTheirDeadline) {
  set({.attempts = 5, .deadline_ns = 10 * kNsPerSec, .backoff_ns = 60 * kNsPerSec});
  Ticket& running = add(*demo_);
  take(*demo_);
  Ticket& delayed = add(*demo_);
  take(*demo_);
  scheduler_.retry(delayed, Cause::kJobFailed, now_);
  Ticket& waiting = add(*demo_);
  EXPECT_EQ(scheduler_.next_event(), now_ + 10 * kNsPerSec);
  EXPECT_TRUE(advance(10 * kNsPerSec - 1).empty());
  EXPECT_EQ(advance(1).size(), 3U);
  for (const Ticket* ticket : {&running, &delayed, &waiting}) {
    EXPECT_EQ(ticket->state(), Ticket::State::kUnknown);
  }
  EXPECT_EQ(scheduler_.next_event(), INT64_MAX);
}

TEST_F(SchedulerTest, AScheduledJobHasNoPlaceUntilItIsDue) {
  Ticket& job = add(*demo_, {.owner = 1, .not_before_ns = now_ + 5 * kNsPerSec});
  Ticket& later = add(*demo_, {.owner = 2});
  EXPECT_EQ(job.state(), Ticket::State::kScheduled);
  EXPECT_EQ(scheduler_.position(job), 0U);
  EXPECT_EQ(scheduler_.position(later), 1U);
  EXPECT_EQ(wait_ns(job), 5 * kNsPerSec);
  EXPECT_EQ(queue_->scheduled, 1U);
  EXPECT_EQ(scheduler_.next_event(), now_ + 5 * kNsPerSec);
  EXPECT_EQ(take(*demo_), &later);
  EXPECT_EQ(take(*demo_), nullptr);
  advance(5 * kNsPerSec - 1);
  EXPECT_EQ(job.state(), Ticket::State::kScheduled);
  advance(1);
  EXPECT_EQ(job.state(), Ticket::State::kWaiting);
  EXPECT_EQ(job.arrived_ns(), now_);
  EXPECT_EQ(queue_->scheduled, 0U);
  EXPECT_EQ(scheduler_.position(job), 1U);
  EXPECT_EQ(take(*demo_), &job);
}

TEST_F(SchedulerTest, ADueJobStandsBehindWhatItsOwnerAddedMeanwhile) {
  Ticket& scheduled = add(*demo_, {.owner = 1, .not_before_ns = now_ + kNsPerSec});
  Ticket& own = add(*demo_, {.owner = 1});
  Ticket& own_too = add(*demo_, {.owner = 1});
  Ticket& others = add(*demo_, {.owner = 2});
  advance(kNsPerSec);
  EXPECT_EQ(take(*demo_), &own);
  EXPECT_EQ(take(*demo_), &others);
  EXPECT_EQ(take(*demo_), &own_too);
  EXPECT_EQ(take(*demo_), &scheduled);
}

TEST_F(SchedulerTest, ScheduledJobsTakePlacesOfTheQueueAndOfTheOwner) {
  set({.max_length = 2, .max_per_owner = 1});
  add(*demo_, {.owner = 1, .not_before_ns = now_ + kNsPerSec});
  Ticket extra;
  EXPECT_EQ(scheduler_.add(extra, *demo_, {.owner = 1}, now_), Admission::kOwnerFull);
  add(*demo_, {.owner = 2});
  EXPECT_EQ(scheduler_.add(extra, *demo_, {.owner = 3}, now_), Admission::kQueueFull);
}

TEST_F(SchedulerTest, BoundsDoNotRefuseWhatWasPromised) {
  set({.max_length = 1, .max_per_owner = 1});
  add(*demo_, {.owner = 1});
  Ticket& promised = add(*demo_, {.owner = 1, .force = true});
  EXPECT_EQ(scheduler_.position(promised), 2U);
  EXPECT_EQ(queue_->waiting, 2U);
}

TEST_F(SchedulerTest, AScheduledJobsDeadlineRunsFromWhenItIsDueUnlessItHasItsOwn) {
  set({.deadline_ns = 10 * kNsPerSec});
  add(*demo_, {.not_before_ns = now_ + 60 * kNsPerSec});
  Ticket& own =
      add(*demo_, {.not_before_ns = now_ + 60 * kNsPerSec, .deadline_ns = now_ + 5 * kNsPerSec});
  const auto early = advance(5 * kNsPerSec);
  ASSERT_EQ(early.size(), 1U);
  EXPECT_EQ(early[0].ticket, &own);
  EXPECT_EQ(own.state(), Ticket::State::kUnknown);
  EXPECT_EQ(queue_->scheduled, 1U);
  EXPECT_TRUE(advance(55 * kNsPerSec).empty());
  EXPECT_TRUE(advance(10 * kNsPerSec - 1).empty());
  EXPECT_EQ(advance(1).size(), 1U);
}

TEST_F(SchedulerTest, AScheduledJobCanBeCancelled) {
  Ticket& job = add(*demo_, {.not_before_ns = now_ + kNsPerSec});
  scheduler_.finish(job, Outcome::kCancelled, now_);
  EXPECT_EQ(job.state(), Ticket::State::kUnknown);
  EXPECT_EQ(queue_->waiting, 0U);
  EXPECT_EQ(queue_->scheduled, 0U);
  EXPECT_EQ(queue_->owners(), 0U);
  EXPECT_EQ(scheduler_.next_event(), INT64_MAX);
}

TEST_F(SchedulerTest, ARestoredJobKeepsItsAgeItsAttemptsAndItsDeadline) {
  set({.attempts = 3, .deadline_ns = 60 * kNsPerSec});
  Ticket& before_boot = add(*demo_, {.arrived_ns = -5});
  EXPECT_EQ(before_boot.arrived_ns(), -5);
  EXPECT_EQ(Scheduler::oldest_wait_ns(*queue_, now_), now_ + 5);
  EXPECT_EQ(advance(0).size(), 1U);  // its deadline was missed
  Ticket& job = add(*demo_, {.not_before_ns = now_ - kNsPerSec,
                             .arrived_ns = now_ - 50 * kNsPerSec,
                             .deadline_ns = now_ + 20 * kNsPerSec,
                             .attempts = 2});
  EXPECT_EQ(job.state(), Ticket::State::kWaiting);
  EXPECT_EQ(job.arrived_ns(), now_ - kNsPerSec);
  EXPECT_EQ(scheduler_.next_event(), now_ + 20 * kNsPerSec);
  take(*demo_);
  EXPECT_FALSE(scheduler_.retry(job, Cause::kJobFailed, now_));
}

TEST_F(SchedulerTest, ARequeuedJobStandsWhereItStoodAndNoAttemptIsCounted) {
  set({.attempts = 1});
  Ticket& first = add(*demo_);
  add(*demo_);
  take(*demo_);
  scheduler_.requeue(first, now_);
  EXPECT_EQ(first.attempts(), 0U);
  EXPECT_EQ(queue_->running, 0U);
  EXPECT_EQ(queue_->waiting, 2U);
  EXPECT_EQ(scheduler_.position(first), 1U);
  EXPECT_EQ(take(*demo_), &first);
}

TEST_F(SchedulerTest, AJobThatIsSetApartIsTakenByNameOnlyAndItsDeadlineRuns) {
  set({.attempts = 2, .deadline_ns = 60 * kNsPerSec});
  Ticket& first = add(*demo_);
  Ticket& second = add(*demo_);
  take(*demo_);
  scheduler_.set_apart(first);
  EXPECT_EQ(first.attempts(), 0U);
  EXPECT_EQ(queue_->waiting, 2U);
  EXPECT_EQ(take(*demo_), &second) << "it stands in no line";
  EXPECT_EQ(take(*demo_), nullptr);
  scheduler_.take(first, *demo_, now_);
  EXPECT_EQ(queue_->running, 2U);
  EXPECT_TRUE(scheduler_.retry(first, Cause::kWorkerLostAlone, now_));
  EXPECT_EQ(first.attempts(), 1U);
  EXPECT_EQ(take(*demo_), nullptr) << "it is set apart again";
  scheduler_.join_again(first, now_);
  EXPECT_EQ(take(*demo_), &first);
  scheduler_.set_apart(first);
  EXPECT_EQ(scheduler_.next_event(), now_ + 60 * kNsPerSec);
}

TEST_F(SchedulerTest, CountsWhoWaitsByClassAndAddsUpTheLowest) {
  set({.attempts = 2, .backoff_ns = kNsPerSec});
  for (int64_t priority = 0; priority < 10; ++priority) {
    for (int64_t i = 0; i <= priority; ++i) {
      add(i % 2 == 0 ? *demo_ : queue_->any_model(), priority);
    }
  }
  add(*demo_, {.priority = 9, .not_before_ns = now_ + kNsPerSec});
  scheduler_.retry(*take(*demo_), Cause::kJobFailed, now_);  // waits to come back
  take(*demo_);
  const auto lengths = Scheduler::waiting_by_class(*queue_);
  ASSERT_EQ(lengths.size(), Scheduler::kMostClasses);
  EXPECT_EQ(lengths[0].priority, 9);
  EXPECT_EQ(lengths[0].waiting, 9U);
  EXPECT_EQ(lengths[6].priority, 3);
  EXPECT_EQ(lengths[6].waiting, 4U);
  EXPECT_EQ(lengths[7].priority, 0);
  EXPECT_EQ(lengths[7].waiting, 3U + 2 + 1);
}

TEST_F(SchedulerTest, ARunningJobsRestFollowsWhatJobsTakeAndWhatItHasDone) {
  Ticket& unknown = add(*demo_);
  take(*demo_);
  now_ += kNsPerSec;
  EXPECT_EQ(scheduler_.remaining_ns(unknown, now_), 0);
  EXPECT_EQ(scheduler_.remaining_ns(unknown, now_, 0.25), 3 * kNsPerSec);
  scheduler_.finish(unknown, Outcome::kCompleted, now_);  // teaches: one second
  Ticket& job = add(*demo_);
  EXPECT_EQ(scheduler_.remaining_ns(job, now_), 0);  // waits
  take(*demo_);
  EXPECT_NEAR(static_cast<double>(scheduler_.remaining_ns(job, now_)), kNsPerSec, kNsPerMs);
  now_ += kNsPerSec / 2;
  EXPECT_NEAR(static_cast<double>(scheduler_.remaining_ns(job, now_)), 500 * kNsPerMs, kNsPerMs);
  now_ += kNsPerSec / 2;
  EXPECT_GT(scheduler_.remaining_ns(job, now_), 0);
  EXPECT_NEAR(static_cast<double>(scheduler_.remaining_ns(job, now_, 0.5)), 500 * kNsPerMs,
              50 * kNsPerMs);
  EXPECT_EQ(scheduler_.remaining_ns(job, now_, 1), 0);
}

TEST_F(SchedulerTest, PositionCountsWhatCompetesForTheSameWorkers) {
  Ticket& other = add(*other_);
  Ticket& demo = add(*demo_);
  Ticket& any = add(queue_->any_model());
  Ticket& late = add(*demo_);
  Ticket& high = add(*demo_, 1);
  EXPECT_EQ(scheduler_.position(other), 1U);
  EXPECT_EQ(scheduler_.position(high), 1U);
  EXPECT_EQ(scheduler_.position(demo), 2U);
  EXPECT_EQ(scheduler_.position(any), 4U);
  EXPECT_EQ(scheduler_.position(late), 4U);
}

TEST_F(SchedulerTest, AnOwnerHasAtMostItsShareOfPlaces) {
  set({.max_length = 10, .max_per_owner = 2, .attempts = 3});
  Ticket& first = add(*demo_, {.owner = 7});
  add(*other_, {.owner = 7, .priority = 3});
  Ticket extra;
  EXPECT_EQ(scheduler_.add(extra, *demo_, {.owner = 7}, now_), Admission::kOwnerFull);
  EXPECT_EQ(extra.state(), Ticket::State::kUnknown);
  add(*demo_, {.owner = 8});
  EXPECT_EQ(take(*demo_), &first);  // those that run do not count
  EXPECT_EQ(scheduler_.add(extra, *demo_, {.owner = 7}, now_), Admission::kAdded);
}

TEST_F(SchedulerTest, OwnersThatAreGoneAreForgotten) {
  for (uint64_t owner = 0; owner < 1000; ++owner) {
    add(*demo_, {.owner = owner});
  }
  EXPECT_EQ(queue_->owners(), 1000U);
  while (Ticket* const job = take(*demo_)) {
    scheduler_.finish(*job, Outcome::kCompleted, now_);
  }
  EXPECT_EQ(queue_->owners(), 0U);
}

TEST_F(SchedulerTest, NothingIsTakenFromAPausedQueueAndPlacesHold) {
  Ticket& first = add(*demo_);
  scheduler_.pause(*queue_);
  Ticket& second = add(*demo_);
  EXPECT_EQ(take(*demo_), nullptr);
  EXPECT_EQ(scheduler_.position(first), 1U);
  EXPECT_EQ(scheduler_.position(second), 2U);
  set({});  // a reload does not resume it
  EXPECT_EQ(take(*demo_), nullptr);
  scheduler_.resume(*queue_);
  EXPECT_EQ(take(*demo_), &first);
}

TEST_F(SchedulerTest, ANewModelsOwnersAreNotPutBehindAnotherModelsPast) {
  for (int i = 0; i < 100; ++i) {
    add(*demo_, {.owner = 1});
  }
  for (int i = 0; i < 99; ++i) {
    add(*other_, {.owner = 2});
    take(*other_);
  }
  add(*other_, {.owner = 2});
  take(*demo_);
  EXPECT_EQ(scheduler_.position(add(*demo_, {.owner = 3})), 1U);
}

TEST_F(SchedulerTest, ALowerClassIsLetBeforeOncePerAgingInterval) {
  set({.aging_ns = kNsPerSec});
  std::vector<Ticket*> low(5);
  for (Ticket*& job : low) {
    job = &add(*demo_, 0);
  }
  int promoted = 0;
  for (int ms = 0; ms < 3500; ms += 20) {  // one high job in, one job out
    add(*demo_, 5);
    promoted += take(*demo_)->promoted() ? 1 : 0;
    ASSERT_EQ(promoted, ms < 1000 ? 0 : ms < 2000 ? 1 : ms < 3000 ? 2 : 3) << ms;
    advance(20 * kNsPerMs);
  }
  EXPECT_EQ(low[2]->state(), Ticket::State::kRunning);
  EXPECT_EQ(low[3]->state(), Ticket::State::kWaiting);
}

TEST_F(SchedulerTest, AgingLetsNoMoreThanOneInSixteenBeforeHoweverSlowTheJobs) {
  set({.aging_ns = kNsPerSec});
  for (int i = 0; i < 100; ++i) {
    add(*demo_, 0);
  }
  int promoted = 0;
  for (int i = 0; i < 170; ++i) {
    add(*demo_, 5);
    promoted += take(*demo_)->promoted() ? 1 : 0;
    advance(30 * kNsPerSec);
  }
  EXPECT_EQ(promoted, 10);
}

TEST_F(SchedulerTest, APromotedJobOfALostWorkerKeepsItsPlace) {
  set({.attempts = 3, .aging_ns = kNsPerSec});
  Ticket& low = add(*demo_, 0);
  for (int i = 0; i < 16; ++i) {
    add(*demo_, 5);
    take(*demo_);
  }
  add(*demo_, 5);
  advance(kNsPerSec);
  ASSERT_EQ(take(*demo_), &low);
  scheduler_.retry(low, Cause::kWorkerLost, now_);
  EXPECT_EQ(scheduler_.position(low), 1U);
}

TEST_F(SchedulerTest, AgingThatIsTurnedOffByAReloadStops) {
  set({.aging_ns = kNsPerSec});
  add(*demo_, 0);
  EXPECT_EQ(scheduler_.next_event(), now_ + kNsPerSec);
  set({});
  advance(0);
  EXPECT_EQ(scheduler_.next_event(), INT64_MAX);
}

// Both slots have been busy for half of 100 ms: the first becomes free in 25 ms, on average.
TEST_F(SchedulerTest, PredictedWaitIsTheWorkAheadOverTheSlots) {
  scheduler_.set_capacity(*demo_, 2);
  for (int i = 0; i < 100; ++i) {
    Ticket& job = add(*demo_);
    EXPECT_EQ(wait_ns(job), 0);  // a slot is free
    take(*demo_);
    now_ += 100 * kNsPerMs;
    scheduler_.finish(job, Outcome::kCompleted, now_);
  }
  add(*demo_);
  take(*demo_);
  add(*demo_);
  take(*demo_);
  now_ += 50 * kNsPerMs;
  EXPECT_EQ(wait_ns(add(*demo_)), 50 * kNsPerMs);  // both slots are free then
  EXPECT_EQ(wait_ns(add(*demo_)), 50 * kNsPerMs);
  EXPECT_EQ(wait_ns(add(*demo_)), 150 * kNsPerMs);
  EXPECT_EQ(scheduler_.predicted_wait_ns(queue_->any_model(), now_), 150 * kNsPerMs);
  EXPECT_EQ(scheduler_.predicted_wait_ns(*demo_, {.priority = 1}, now_), 50 * kNsPerMs);
  for (int i = 3; i < 100; ++i) {
    add(*demo_);
  }
  EXPECT_NEAR(static_cast<double>(wait_ns(add(*demo_))), 50.0 * 100 * kNsPerMs, 50 * kNsPerMs);
}

TEST_F(SchedulerTest, PredictedWaitGoesSlotBySlotWhereCostsSayWhatJobsTake) {
  scheduler_.set_capacity(*demo_, 2);
  for (uint64_t i = 0; i < 100; ++i) {  // a millisecond a unit
    Ticket& job = add(*demo_, {.cost = 1 + i % 100});
    take(*demo_);
    now_ += static_cast<int64_t>(1 + i % 100) * kNsPerMs;
    scheduler_.finish(job, Outcome::kCompleted, now_);
  }
  const auto near = [&](const Ticket& ticket, int64_t ms) {
    EXPECT_NEAR(static_cast<double>(wait_ns(ticket)), static_cast<double>(ms * kNsPerMs), 3e6);
  };
  Ticket& brief = add(*demo_, {.cost = 10});
  add(*demo_, {.cost = 100});
  take(*demo_);
  take(*demo_);
  near(add(*demo_, {.cost = 20}), 10);
  near(add(*demo_, {.cost = 30}), 30);
  near(add(*demo_, {.cost = 50}), 60);
  Ticket& last = add(*demo_, {.cost = 1});
  near(last, 100);
  near(add(*demo_, {.priority = 5, .cost = 40}), 10);  // goes before all that wait
  near(last, 100);                                     // behind 40, 20, 30 and the long one
  scheduler_.finish(brief, Outcome::kCancelled, now_);
  near(last, 100);  // 40, 20, 30 and 50 on the other slot would take longer
}

// Both take 100 ms a job, and have as much as 1 s of work waiting.
TEST_F(SchedulerTest, WhereLanesShareADeviceTheirTurnsAreCounted) {
  const auto share = [&](uint32_t slots, uint32_t others) {
    scheduler_.set_capacity(*demo_, slots);
    scheduler_.set_capacity(*other_, others);
    scheduler_.set_rivals(*demo_, slots, {{.lane = other_, .part = 1, .slots = others}});
    scheduler_.set_rivals(*other_, slots, {{.lane = demo_, .part = 1, .slots = slots}});
  };
  const auto ms = [&](const Ticket& ticket) { return wait_ns(ticket) / kNsPerMs; };
  share(1, 1);
  for (Scheduler::Lane* const lane : {demo_, other_}) {
    Ticket& job = add(*lane);
    take(*lane);
    now_ += 100 * kNsPerMs;
    scheduler_.finish(job, Outcome::kCompleted, now_);
  }
  EXPECT_EQ(ms(add(*other_)), 0);
  Ticket& runs = *take(*other_);
  for (int i = 0; i < 10; ++i) {
    add(*other_);
  }
  Ticket& first = add(*demo_);
  EXPECT_EQ(ms(first), 100) << "the device is the other's until then";
  EXPECT_EQ(ms(add(*demo_)), 300) << "one of each before it";
  EXPECT_EQ(ms(add(*demo_)), 500);
  EXPECT_EQ(ms(add(*demo_, -1)), 1400) << "all the other's are of a higher class";
  EXPECT_NEAR(static_cast<double>(ms(add(*other_))), 1400, 70) << "of ours, three are of its class";
  EXPECT_EQ(scheduler_.predicted_wait_ns(*other_, {.priority = 1}, now_), 100 * kNsPerMs);
  EXPECT_EQ(ms(add(*demo_, 1)), 100);

  // With room for more, the other does what its one slot can, and leaves the rest.
  scheduler_.finish(runs, Outcome::kCancelled, now_);
  share(4, 1);
  take(*other_);
  for (int i = 0; i < 3; ++i) {
    take(*demo_);
  }
  for (int i = 0; i < 300; ++i) {
    add(*demo_);
  }
  for (int i = 0; i < 300; ++i) {
    add(*other_);
  }
  EXPECT_NEAR(static_cast<double>(ms(add(*demo_))), 10'000, 300) << "300 jobs on three slots";
}

TEST_F(SchedulerTest, ARivalsJobsThatNameNoModelCountAndThoseOfAPausedQueueDoNot) {
  auto& image = scheduler_.set_queue({.name = "image"});
  auto& rival = scheduler_.lane(image, "image");
  scheduler_.set_capacity(*demo_, 1);
  scheduler_.set_capacity(rival, 1);
  scheduler_.set_rivals(*demo_, 1, {{.lane = &rival, .part = 1, .slots = 1}});
  scheduler_.set_rivals(rival, 1, {{.lane = demo_, .part = 1, .slots = 1}});
  for (Scheduler::Lane* const lane : {demo_, &rival}) {
    Ticket& job = add(*lane);
    take(*lane);
    now_ += 100 * kNsPerMs;
    scheduler_.finish(job, Outcome::kCompleted, now_);
  }
  add(*demo_);
  take(*demo_);
  for (int i = 0; i < 19; ++i) {
    add(*demo_);
  }
  const auto last_ms = [&, &last = add(*demo_)] { return wait_ns(last) / kNsPerMs; };
  EXPECT_EQ(last_ms(), 2000);
  for (int i = 0; i < 50; ++i) {
    add(image.any_model());
  }
  EXPECT_NEAR(static_cast<double>(last_ms()), 3900, 1);
  scheduler_.pause(image);
  EXPECT_EQ(last_ms(), 2000);
  scheduler_.resume(image);
  EXPECT_NEAR(static_cast<double>(last_ms()), 3900, 1);
  scheduler_.pause(*queue_);
  EXPECT_NEAR(static_cast<double>(last_ms()), 3900, 1) << "as if it were resumed";
}

TEST_F(SchedulerTest, WhatAJobSaysItCostsIsBelievedWithinReason) {
  scheduler_.set_capacity(*demo_, 1);
  Ticket& job = add(*demo_, {.cost = 1});
  take(*demo_);
  now_ += 1500 * kNsPerSec;
  scheduler_.finish(job, Outcome::kCompleted, now_);
  add(*demo_, {.cost = FairShare::kMaxCost});
  EXPECT_EQ(Scheduler::expected_ns(*take(*demo_)), 86'400 * kNsPerSec);
  for (int i = 0; i < 1000; ++i) {
    add(*demo_, {.cost = FairShare::kMaxCost});
  }
  EXPECT_EQ(wait_ns(add(*demo_)), 1'000'000'000'000'000'000);
}

TEST_F(SchedulerTest, WithoutWorkOfOthersASharedDeviceIsItsOwn) {
  scheduler_.set_capacity(*demo_, 2);
  scheduler_.set_rivals(*demo_, 2, {{.lane = other_, .part = 0.5, .slots = 2}});
  Ticket& job = add(*demo_);
  take(*demo_);
  now_ += 100 * kNsPerMs;
  scheduler_.finish(job, Outcome::kCompleted, now_);
  EXPECT_EQ(wait_ns(add(*demo_)), 0);
  take(*demo_);
  EXPECT_EQ(wait_ns(add(*demo_)), 0);
  take(*demo_);
  EXPECT_EQ(wait_ns(add(*demo_)), 100 * kNsPerMs);
}

TEST_F(SchedulerTest, WithNobodyThereThePredictionKeepsTheLastKnownRate) {
  scheduler_.set_capacity(*demo_, 4);
  Ticket& job = add(*demo_);
  take(*demo_);
  now_ += kNsPerSec;
  scheduler_.finish(job, Outcome::kCompleted, now_);
  scheduler_.set_capacity(*demo_, 0);
  for (int i = 0; i < 100; ++i) {
    add(*demo_);
  }
  EXPECT_NEAR(static_cast<double>(wait_ns(add(*demo_))), 25.0 * kNsPerSec, 0.5 * kNsPerSec);
}

TEST_F(SchedulerTest, AJobForAnyModelWaitsForTheFirstWorkersThatGetToIt) {
  scheduler_.set_capacity(*demo_, 1);
  scheduler_.set_capacity(*other_, 1);
  for (Scheduler::Lane* const lane : {demo_, other_}) {
    Ticket& job = add(*lane);
    take(*lane);
    now_ += kNsPerSec;
    scheduler_.finish(job, Outcome::kCompleted, now_);
    add(*lane);
    take(*lane);
  }
  for (int i = 0; i < 10; ++i) {
    add(*demo_);
  }
  add(*other_);
  EXPECT_NEAR(static_cast<double>(wait_ns(add(queue_->any_model(), -1))), 2.0 * kNsPerSec, 1.0);
}

TEST_F(SchedulerTest, ChangedSettingsApplyInPlace) {
  set({.max_length = 1});
  Ticket& job = add(*demo_);
  Ticket extra;
  EXPECT_EQ(scheduler_.add(extra, *demo_, {}, now_), Admission::kQueueFull);
  set({.max_length = 2});
  EXPECT_EQ(scheduler_.add(extra, *demo_, {}, now_), Admission::kAdded);
  EXPECT_EQ(take(*demo_), &job);
  scheduler_.finish(extra, Outcome::kCancelled, now_);
}

TEST_F(SchedulerTest, FinishingAnUnknownTicketDoesNothing) {
  Ticket ticket;
  scheduler_.finish(ticket, Outcome::kCompleted, now_);
  EXPECT_EQ(queue_->running, 0U);
}

}  // namespace
}  // namespace penstock::queue
