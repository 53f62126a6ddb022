// What jobs take of the state, how long the start takes, and what a list looks at.
#include <sqlite3.h>

#include <fstream>

#include "store_fixture.h"
#include "worker/queue/clock/clock_doubt.h"
#include "worker/queue/link/signals.h"

namespace penstock::queue {
namespace {

class StoreAccountTest : public StoreFixture {
 protected:
  ~StoreAccountTest() override { sqlite3_reset_auto_extension(); }

  // Of all statements of the store, until now.
  static int64_t steps() {
    int64_t steps = 0;
    for (sqlite3_stmt* each = nullptr; (each = sqlite3_next_stmt(opened_, each)) != nullptr;) {
      steps += sqlite3_stmt_status(each, SQLITE_STMTSTATUS_VM_STEP, 0);
    }
    return steps;
  }
  bool open_watched() {
    sqlite3_auto_extension(
        reinterpret_cast<void (*)()>(+[](sqlite3* database, char**, const sqlite3_api_routines*) {
          opened_ = database;
          return SQLITE_OK;
        }));
    return static_cast<bool>(open());
  }
  void ended(int count, const char* owner, JobStatus status = JobStatus::kCompleted) {
    for (int i = 0; i < count; ++i) {
      const JobRecord sent = job(owner);
      store_->promise(sent, "S", [](PromiseOutcome) {});
      store_->finish(end(sent.id, status), 0, "", [](const JobEnd&) {});
    }
    settle();
  }
  int64_t steps_of(const JobQuery& query, size_t expected) {
    const int64_t before = steps();
    EXPECT_EQ(list(query).size(), expected);
    return steps() - before;
  }
  // From the disk, since it was opened.
  static int64_t pages_read() {
    int now = 0;
    int most = 0;
    sqlite3_db_status(opened_, SQLITE_DBSTATUS_CACHE_MISS, &now, &most, 0);
    return now;
  }
  static uint32_t bit(JobStatus status) { return 1U << static_cast<uint32_t>(status); }

  static inline sqlite3* opened_ = nullptr;
};

TEST_F(StoreAccountTest, OneWhoTakesTooMuchIsRefusedAloneUntilSomethingIsOver) {
  options_.max_share_bytes = 100'000;
  ASSERT_TRUE(open());
  const JobRecord first = job("alice");
  EXPECT_EQ(promise(first, std::string(60'000, 'x')), PromiseOutcome::kStored);
  EXPECT_EQ(promise(job("alice"), std::string(60'000, 'x')), PromiseOutcome::kShareFull);
  EXPECT_EQ(promise(job("bob"), std::string(60'000, 'x')), PromiseOutcome::kStored);
  EXPECT_TRUE(store_->health());
  finish(end(first.id), std::string(70'000, 'r'));
  EXPECT_EQ(promise(job("alice"), std::string(60'000, 'x')), PromiseOutcome::kShareFull)
      << "results count";
  store_->drop(first.id, [](bool) {});
  settle();
  EXPECT_EQ(promise(job("alice"), std::string(60'000, 'x')), PromiseOutcome::kStored);
}

TEST_F(StoreAccountTest, WhatEachTakesIsKnownAfterARestart) {
  options_.max_share_bytes = 100'000;
  ASSERT_TRUE(open());
  EXPECT_EQ(promise(job("alice"), std::string(60'000, 'x')), PromiseOutcome::kStored);
  const JobRecord large = job("bob");
  promise(large);
  finish(end(large.id), std::string(90'000, 'r'));
  const uint64_t bytes = store_->figures().bytes;
  reopen();
  settle();
  EXPECT_EQ(promise(job("alice"), std::string(60'000, 'x')), PromiseOutcome::kShareFull);
  EXPECT_EQ(promise(job("bob"), std::string(60'000, 'x')), PromiseOutcome::kShareFull);
  EXPECT_EQ(promise(job("carol"), std::string(60'000, 'x')), PromiseOutcome::kStored);
  EXPECT_GE(store_->figures().bytes, bytes) << "its file, too";
}

TEST_F(StoreAccountTest, WhatARunningJobHasWrittenCounts) {
  options_.max_bytes = 4 << 20;
  ASSERT_TRUE(open());
  const JobRecord sent = job();
  promise(sent);
  const uint64_t before = store_->figures().bytes;
  store_->append_result(sent.id, 0, std::string(5 << 20, 'r'));
  EXPECT_EQ(store_->pending_bytes(), 5U << 20);
  settle();
  EXPECT_EQ(store_->pending_bytes(), 0U);
  EXPECT_GE(store_->figures().bytes, before + (5 << 20));
  EXPECT_EQ(promise(job()), PromiseOutcome::kFull);
  store_->discard_result(sent.id);
  settle();
  EXPECT_EQ(promise(job()), PromiseOutcome::kStored);
}

TEST_F(StoreAccountTest, TheDiskShrinksAgain) {
  ASSERT_TRUE(open());
  std::vector<JobId> ids;
  for (int i = 0; i < 150; ++i) {
    const JobRecord sent = job();
    store_->promise(sent, std::string(100'000, 'b'), [](PromiseOutcome) {});
    ids.push_back(sent.id);
  }
  settle();
  const uint64_t full = store_->figures().disk_bytes;
  for (const JobId& id : ids) {
    store_->finish(end(id), 0, "", [](const JobEnd&) {});
  }
  settle();
  for (int i = 0; i < 40; ++i) {
    store_->sweep(kNowMs + 3'600'000);
    settle();
  }
  EXPECT_LT(store_->figures().disk_bytes, full - 10'000'000);
}

TEST_F(StoreAccountTest, AnOwnersListLooksAtWhatItShows) {
  ASSERT_TRUE(open_watched());
  ended(3, "alice", JobStatus::kFailed);
  ended(5000, "alice");
  for (int i = 0; i < 1000; ++i) {
    store_->promise(job("alice"), "S", [](PromiseOutcome) {});
  }
  settle();
  JobQuery query;
  query.owner = job("alice").owner;
  query.statuses = bit(JobStatus::kFailed);
  EXPECT_LT(steps_of(query, 3), 60'000) << "what has just ended is looked through";
  query.statuses = bit(JobStatus::kQueued) | bit(JobStatus::kProcessing);
  EXPECT_LT(steps_of(query, 0), 60'000) << "the living are in memory";
  query.owner = job("bob").owner;
  query.statuses = ~0U;
  EXPECT_LT(steps_of(query, 0), 60'000);
}

TEST_F(StoreAccountTest, TheOperatorsListLooksAtAFewAndSaysWhetherThereIsMore) {
  ASSERT_TRUE(open_watched());
  ended(1, "alice", JobStatus::kFailed);
  ended(10'000, "bob");
  JobQuery query;
  query.statuses = bit(JobStatus::kFailed);
  EXPECT_LT(steps_of(query, 0), 300'000);
  ASSERT_TRUE(page_.more);
  int rounds = 0;
  while (page_.more && page_.jobs.empty() && rounds < 20) {
    query.before = page_.last;
    list(query);
    ++rounds;
  }
  EXPECT_EQ(page_.jobs.size(), 1U) << "it is found in the end";
  query.before.reset();
  query.statuses = bit(JobStatus::kQueued);
  EXPECT_LT(steps_of(query, 0), 1000) << "those that have ended are not looked at";
  EXPECT_FALSE(page_.more);
}

TEST_F(StoreAccountTest, AListOfSeveralStatusesIsInOrderOverItsPages) {
  ASSERT_TRUE(open());
  std::vector<std::string> all;
  for (int i = 0; i < 1500; ++i) {
    const JobRecord sent = job("alice");
    store_->promise(sent, "S", [](PromiseOutcome) {});
    store_->finish(end(sent.id, i % 7 == 0 ? JobStatus::kFailed : JobStatus::kCompleted), 0, "",
                   [](const JobEnd&) {});
    all.insert(all.begin(), std::string(sent.id.view()));
  }
  settle();
  JobQuery query;
  query.owner = job("alice").owner;
  query.limit = 37;
  std::vector<std::string> seen;
  do {
    const auto ids = list(query);
    seen.insert(seen.end(), ids.begin(), ids.end());
    query.before = page_.last;
  } while (page_.more);
  EXPECT_EQ(seen, all);
}

// ---- the start ----

TEST(EndOnStopTest, AStartEndsWhenItIsToldTo) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const auto signals = open_signals();
        const EndOnStop end_on_stop(*signals);
        ::kill(::getpid(), SIGHUP);  // that is for later
        ::kill(::getpid(), SIGTERM);
        for (;;) {  // whatever it is doing
          ::pause();
        }
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(StoreAccountTest, EveryPageIsReadOnlyWhereItWasLeftOpenInAnEarlierBoot) {
  ASSERT_TRUE(open());
  for (int i = 0; i < 100; ++i) {
    store_->promise(job(), std::string(20'000, 'b'), [](PromiseOutcome) {});
  }
  settle();
  EXPECT_TRUE(std::filesystem::exists(options_.folder + "/unclean")) << "while it is open";
  store_.reset();
  EXPECT_FALSE(std::filesystem::exists(options_.folder + "/unclean"));
  ASSERT_TRUE(open_watched());
  const int64_t clean = pages_read();
  store_.reset();
  std::ofstream(options_.folder + "/unclean") << "another boot\n";
  ASSERT_TRUE(open_watched());
  EXPECT_GT(pages_read(), clean + 300);
}

TEST_F(StoreAccountTest, APromiseThatCannotBeReadHasFailed) {
  ASSERT_TRUE(open());
  const JobRecord good = job();
  promise(good);
  const JobRecord bad = job();
  promise(bad);
  execute("UPDATE jobs SET digest=x'00' WHERE seq=" + std::to_string(sequence_of(bad.id)));
  const auto jobs = reopen();
  settle();
  ASSERT_EQ(jobs.size(), 1U);
  EXPECT_EQ(jobs[0].id.view(), good.id.view());
  EXPECT_EQ(store_->figures().damaged_rows, 1U);
  const auto found = find(bad.id);
  ASSERT_TRUE(found) << "its owner can see that";
  EXPECT_EQ(found->status, JobStatus::kFailed);
  EXPECT_NE(found->end.error.find("damaged"), std::string::npos);
  reopen();
  EXPECT_EQ(store_->figures().damaged_rows, 0U) << "once is enough";
}

TEST_F(StoreAccountTest, DamagedRowsThatHaveExpiredDoNotStopTheSweep) {
  ASSERT_TRUE(open());
  ended(300, "alice");
  execute("UPDATE jobs SET id=x'00'");
  ASSERT_TRUE(open());
  ended(10, "bob");
  store_->sweep(kNowMs + 3'600'000);
  settle();
  EXPECT_EQ(execute("SELECT count(*) FROM jobs"), "0");
  EXPECT_EQ(execute("SELECT (SELECT count(*) FROM ended) + (SELECT count(*) FROM recently_ended)"),
            "0");
}

// ---- a wrong clock ----

TEST_F(StoreAccountTest, WhatWasMadeUnderAClockFarAheadIsNotKeptForEver) {
  constexpr int64_t kYearMs = int64_t{365} * 86'400'000;
  ASSERT_TRUE(open());
  JobRecord early = job();
  promise(early);
  finish(end(early.id), "r");
  JobRecord ahead = job();
  ahead.id = ids_.make(kNowMs + kYearMs);
  promise(ahead);
  JobEnd then = end(ahead.id);
  then.finished_ms = kNowMs + kYearMs;
  then.expires_ms = then.finished_ms + 60'000;
  finish(then, "r");
  EXPECT_EQ(store_->newest_ms(), 0);
  reopen();
  settle();
  EXPECT_EQ(store_->newest_ms(), kNowMs + kYearMs);
  store_->clamp_expiries(kNowMs);
  store_->sweep(kNowMs + 59'000);
  settle();
  EXPECT_TRUE(find(ahead.id));
  store_->sweep(kNowMs + 61'000);
  settle();
  EXPECT_FALSE(find(ahead.id));
}

bool synchronised = false;

TEST(ClockDoubtTest, HoldsUntilTheClockIsSynchronisedOrSomeTimeHasPassed) {
  constexpr int64_t kDayMs = 86'400'000;
  constexpr int64_t kNow = 1'763'780'000'000;
  const auto doubt = [](int64_t newest_ms) {
    return ClockDoubt(newest_ms, kNow, kNsPerSec, [] { return synchronised; });
  };
  synchronised = false;
  EXPECT_FALSE(doubt(0).holds(kNsPerSec)) << "there is nothing to compare with";
  EXPECT_FALSE(doubt(kNow - kDayMs).holds(kNsPerSec));
  ClockDoubt ahead = doubt(kNow - kDayMs - 1);
  EXPECT_TRUE(ahead.holds(kNsPerSec));
  EXPECT_TRUE(ahead.holds(ClockDoubt::kMostNs));
  EXPECT_FALSE(ahead.holds(ClockDoubt::kMostNs + kNsPerSec));
  ClockDoubt behind = doubt(kNow + kDayMs + 1);
  EXPECT_TRUE(behind.holds(2 * kNsPerSec));
  EXPECT_LT(behind.off_ms(), 0);
  synchronised = true;
  EXPECT_FALSE(behind.holds(3 * kNsPerSec));
  synchronised = false;
  EXPECT_FALSE(behind.holds(4 * kNsPerSec)) << "it was, once";
}

}  // namespace
}  // namespace penstock::queue
