// What a host has promised of a shared queue, and Redis does not know.
#include "worker/queue/shared_jobs/promise_journal.h"

#include <gtest/gtest.h>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"
#include "tests/unit/queue/store/store_fixture.h"

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

}  // namespace
}  // namespace penstock::queue
