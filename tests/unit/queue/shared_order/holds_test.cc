// By what a host holds its jobs: the fence of a taking, a lease, and a name that is its own.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

using End = SharedOrder::End;
using Life = SharedOrder::Life;
using State = SharedOrder::Known::State;

constexpr char kHost[] = "host-one";
constexpr int64_t kStart = 1'000'000'000'000, kLease = 8'000'000;

class HoldsTest : public testing::Test {
 protected:
  HoldsTest() {
    at(0);
    EXPECT_TRUE(renew(Life::kJoins));
    for (const char* const id : {"a", "b"}) {
      client_.get<SharedOrder::Added>(
          [&](auto then) { return order_.add({.id = id, .lane = "m", .body = "b"}, then); });
    }
  }
  void at(int64_t us) { order_.set_clock(kStart + us); }
  bool renew(Life life) {
    return client_
        .get<SharedOrder::Renewed>(
            [&](auto then) { return order_.renew(kHost, life, kLease, then); })
        .known;
  }
  SharedOrder::Served serve(size_t most, std::vector<SharedOrder::Finished> finished = {}) {
    return client_.get<SharedOrder::Served>(
        [&](auto then) { return order_.serve(kHost, "m", most, finished, then); });
  }
  End requeue(std::string_view id, uint64_t fence) {
    return client_.get<End>([&](auto then) {
      return order_.requeue({.id = id, .host = kHost, .fence = fence, .result = {}}, 0, then);
    });
  }
  SharedOrder::Known look(std::string_view id) {
    return client_.get<SharedOrder::Known>([&](auto then) { return order_.look(id, 0, then); });
  }

  RedisServer server_{{}};
  OrderClient client_{server_.socket()};
  SharedOrder order_{client_.servers(), {.name = "q", .max_length = 100, .attempts = 3}, 60'000};
};

TEST_F(HoldsTest, AReturnByAnEarlierTakingIsDropped) {
  const uint64_t first = serve(1).taken.at(0).fence;
  EXPECT_EQ(requeue("a", first), End::kEnded);
  const uint64_t second = serve(1).taken.at(0).fence;
  EXPECT_GT(second, first);
  EXPECT_EQ(requeue("a", first), End::kNotOurs);
  EXPECT_EQ(client_.get<End>([&](auto then) {
    return order_.retry({.id = "a", .host = kHost, .fence = first, .result = {}}, 0,
                        Scheduler::Cause::kJobFailed, then);
  }),
            End::kNotOurs);
  EXPECT_EQ(look("a").state, State::kRunning);
  EXPECT_EQ(look("a").attempts, 0U);
  EXPECT_EQ(requeue("a", second), End::kEnded);
}

TEST_F(HoldsTest, OfAnEndThatIsSaidTwiceAtOnceTheFirstCounts) {
  const auto taken = serve(2).taken;
  const uint64_t fence = taken.at(0).fence;
  const std::vector<SharedOrder::Finished> twice = {{"a", fence, "one"}, {"a", fence, "two"}};
  EXPECT_EQ(serve(0, twice).ended, (std::vector{End::kEnded, End::kOver}));
  EXPECT_EQ(look("a").result, "one");
  EXPECT_NE(server_.ask("KEYS test:q1:{q}:f|*"), "") << "another of the class runs still";
  EXPECT_EQ(serve(0, {{"b", taken.at(1).fence, "three"}}).ended, std::vector{End::kEnded});
}

TEST_F(HoldsTest, WhatIsOverGoesByItself) {
  serve(0, {{"a", serve(1).taken.at(0).fence, "one"}});
  EXPECT_EQ(client_.get<End>([&](auto then) { return order_.cancel("b", "", then); }), End::kEnded);
  for (const char* const id : {"a", "b"}) {
    EXPECT_EQ(look(id).state, State::kOver);
    const int64_t ms = std::stoll(*server_.ask("PTTL test:q1:{q}:j|" + std::string(id)));
    EXPECT_TRUE(ms > 0 && ms <= 60'000) << ms;
  }
}

TEST_F(HoldsTest, AHostWhoseJobsAreBeingTakenBackIsNotRenewedAndGetsNone) {
  EXPECT_EQ(serve(2).taken.size(), 2U);
  at(kLease + 1);
  const auto reaped =
      client_.get<SharedOrder::Reaped>([&](auto then) { return order_.reap(1, then); });
  EXPECT_EQ(reaped.back, 1U);
  EXPECT_FALSE(renew(Life::kStays));
  EXPECT_FALSE(renew(Life::kJoins)) << "nor as another of that name";
  EXPECT_TRUE(serve(2).taken.empty());
  EXPECT_EQ(client_.get<SharedOrder::Reaped>([&](auto then) { return order_.reap(9, then); }).back,
            1U);
}

TEST_F(HoldsTest, ANameIsOneHosts) {
  EXPECT_FALSE(renew(Life::kJoins));
  EXPECT_TRUE(renew(Life::kStays));
}

}  // namespace
}  // namespace penstock::queue
