// What a host has promised of a shared queue, and Redis does not know.
#include "worker/queue/shared_jobs/promise_journal.h"

#include <gtest/gtest.h>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"
#include "tests/unit/queue/store/store_fixture.h"
#include "worker/queue/shared_jobs/arrivals.h"

namespace penstock::queue {
namespace {

constexpr int64_t kHourMs = 3'600'000;

class PromiseJournalTest : public StoreFixture {
 protected:
  PromiseJournalTest() { reopen(); }

  void keep_for(int64_t ms) {
    journal_ = std::make_unique<PromiseJournal>("q", order_, *store_, ms);
  }
  void promise(const std::string& id) {
    journal_->note({.id = id, .lane = "m", .promised = true},
                   [](bool written) { EXPECT_TRUE(written); });
    settle();
    journal_->promised(id);
  }
  // Asks Redis, and does what follows, until it is so.
  bool until(const std::function<bool()>& is_so) {
    EXPECT_TRUE(client_.until_ready());
    journal_->doubt();
    return client_.until([&] {
      journal_->advance_to(monotonic_ns());
      settle();
      return is_so();
    });
  }
  SharedOrder::Known::State state(std::string_view id) {
    return client_.get<SharedOrder::Known>([&](auto then) { return order_.look(id, 0, then); })
        .state;
  }

  using State = SharedOrder::Known::State;
  RedisServer server_;
  OrderClient client_{server_.socket()};
  SharedOrder order_{client_.servers(), {.name = "q", .max_length = 100}, kHourMs};
  std::unique_ptr<PromiseJournal> journal_;
};

TEST_F(PromiseJournalTest, WhatRedisHasLostIsAnnounced) {
  keep_for(kHourMs);
  promise("1");
  EXPECT_TRUE(until([this] { return journal_->announced() == 1; }));
  EXPECT_EQ(state("1"), State::kWaiting);
}

TEST_F(PromiseJournalTest, WhatRedisHasLostIsAnnouncedThoughTheQueueIsFull) {
  order_.set({.name = "q", .max_length = 1}, kHourMs);
  client_.get<SharedOrder::Added>(
      [&](auto then) { return order_.add({.id = "other", .lane = "m"}, then); });
  keep_for(kHourMs);
  promise("1");
  EXPECT_TRUE(until([this] { return journal_->announced() == 1; }));
  EXPECT_EQ(state("1"), State::kWaiting);
}

TEST_F(PromiseJournalTest, ADoubtIsLookedIntoAtOnce) {
  keep_for(kHourMs);
  promise("1");
  EXPECT_TRUE(until([this] { return journal_->announced() == 1; }));
  server_.ask("FLUSHALL");
  const int64_t now_ns = monotonic_ns();  // and no later
  journal_->doubt();
  EXPECT_TRUE(client_.until([&] {
    journal_->advance_to(now_ns);
    settle();
    return journal_->announced() == 2;
  }));
}

TEST_F(PromiseJournalTest, WhatIsOverIsKeptNoMore) {
  keep_for(kHourMs);
  promise("1");
  EXPECT_TRUE(until([this] { return journal_->announced() == 1; }));
  client_.get<SharedOrder::End>([&](auto then) { return order_.cancel("1", "", then); });
  EXPECT_TRUE(until([this] { return journal_->size() == 0; }));
  EXPECT_EQ(journal_->announced(), 1U);
}

TEST_F(PromiseJournalTest, WhatIsLostIsNotAnnouncedOnceItsDeadlineHasPassed) {
  keep_for(kHourMs);
  journal_->note({.id = "1", .lane = "m", .job = {.deadline_us = 1}, .promised = true},
                 [](bool) {});
  settle();
  journal_->promised("1");
  EXPECT_TRUE(until([this] { return journal_->size() == 0 || journal_->announced() > 0; }));
  EXPECT_EQ(journal_->announced(), 0U);
}

// It may have ended while ends were kept less long, and have been forgotten: it does not run again.
TEST_F(PromiseJournalTest, WhatMayHaveEndedAndBeenForgottenIsGivenUp) {
  keep_for(kHourMs);
  promise("1");
  journal_->set(0);
  EXPECT_TRUE(until([this] { return journal_->size() == 0; }));
  promise("2");
  journal_->set(kHourMs);
  EXPECT_TRUE(until([this] { return journal_->size() == 0; }));
  EXPECT_EQ(journal_->announced(), 0U);
  EXPECT_EQ(state("1"), State::kUnknown);
  EXPECT_EQ(state("2"), State::kUnknown);
}

// Jobs on their way in, which are noted beside.
class ArrivalsTest : public PromiseJournalTest {
 protected:
  static constexpr const char* kRefuse =
      "CREATE TRIGGER no BEFORE INSERT ON away BEGIN SELECT RAISE(ABORT, 'no'); END";

  void open_arrivals(int64_t keep_dead_ms = INT64_MAX) {
    arrivals_ = std::make_unique<Arrivals>(
        order_, Scheduler::QueueSettings{.name = "q", .max_length = 100}, kHourMs,
        Promising{&client_.servers(), 0, store_.get(), keep_dead_ms},
        Arrivals::Calls{.home = [] { return std::string("its-home"); },
                        .came = [](const std::string&, int64_t) {}});
  }
  Arrivals::Outcome add(const std::string& id, const std::string& key) {
    std::optional<Arrivals::Outcome> is;
    EXPECT_TRUE(client_.until_ready());
    arrivals_->add({.id = id,
                    .lane = "m",
                    .key = key,
                    .key_is = "digest",
                    .job = {.key_ms = key.empty() ? 0 : kHourMs},
                    .promised = true},
                   [&](Arrivals::Outcome outcome, const SharedOrder::Added&) { is = outcome; });
    EXPECT_TRUE(client_.until([&] {
      arrivals_->advance_to(monotonic_ns());
      arrivals_->flush();
      settle();
      return is.has_value();
    }));
    return is.value_or(Arrivals::Outcome::kAway);
  }

  std::unique_ptr<Arrivals> arrivals_;
};

// Another host's journal has the job that is joined.
TEST_F(ArrivalsTest, WhereTheJournalFailsNothingIsPromisedButWhatIsThereIsJoined) {
  open_arrivals();
  EXPECT_EQ(add("1", "key"), Arrivals::Outcome::kAdded);
  EXPECT_TRUE(arrivals_->journal()->contains("1"));
  arrivals_.reset();
  execute(kRefuse);
  reopen();
  open_arrivals();
  EXPECT_EQ(add("2", "key"), Arrivals::Outcome::kKeyUsed);
  EXPECT_EQ(add("3", ""), Arrivals::Outcome::kAway);
  EXPECT_EQ(arrivals_->journal()->size(), 0U);
}

// It may have been one, and does not run again.
TEST_F(ArrivalsTest, WhatMayHaveBeenADeadLetterIsGivenUpOnceThoseAreForgotten) {
  open_arrivals(0);
  PromiseJournal& journal = *arrivals_->journal();
  journal.note({.id = "1", .lane = "m", .promised = true}, [](bool) {});
  settle();
  journal.promised("1");
  EXPECT_TRUE(client_.until_ready());
  journal.doubt();
  EXPECT_TRUE(client_.until([&] {
    journal.advance_to(monotonic_ns());
    settle();
    return journal.size() == 0 || journal.announced() > 0;
  }));
  EXPECT_EQ(journal.announced(), 0U);
}

}  // namespace
}  // namespace penstock::queue
