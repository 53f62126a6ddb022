// Ends that are still to be told, and lists of jobs, as hosts see them in Redis.
#include "worker/queue/shared_order/endings.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/channel.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

using Mark = SharedOrder::Mark;
using Outcome = Endings::Outcome;

constexpr char kHost[] = "host-one";
constexpr char kAlice[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
constexpr int64_t kSecondUs = 1'000'000;

std::string id_of(int number) {
  std::string digits = std::to_string(number);
  return "job_" + std::string(26 - digits.size(), '0') + digits;
}

class EndingsTest : public testing::Test {
 protected:
  EndingsTest() {
    client_.get<SharedOrder::Renewed>([&](auto then) {
      return order_.renew(kHost, SharedOrder::Life::kJoins, 60'000'000, then);
    });
  }
  void add(int number, int marks) {
    const std::string id = id_of(number);
    client_.get<SharedOrder::Added>([&](auto then) {
      return order_.add({.id = id,
                         .lane = "m",
                         .owner = 7,
                         .marks = static_cast<uint8_t>(marks),
                         .listed = kAlice,
                         .body = "what was asked"},
                        then);
    });
  }
  // Takes all, and ends them.
  void end(char how = 'D') {
    const auto serve = [&](const std::vector<SharedOrder::Finished>& finished) {
      return client_.get<SharedOrder::Served>([&](auto then) {
        return order_.serve(kHost, "m", finished.empty() ? 16 : 0, finished, then);
      });
    };
    const SharedOrder::Served served = serve({});
    std::vector<SharedOrder::Finished> finished;
    for (const SharedOrder::Taken& job : served.taken) {
      finished.push_back({.id = job.id, .fence = job.fence, .result = "answer", .how = how});
    }
    serve(finished);
  }
  Endings::Page take(std::string_view kind, Endings& endings) {
    return client_.get<Endings::Page>(
        [&](auto then) { return endings.take(kind, 10, lease_us_, 100, then); });
  }
  Endings::Page take(std::string_view kind) { return take(kind, endings_); }
  bool told(std::string_view kind, const Endings::Taken& ending,
            int64_t after_us = SharedOrder::kNever, Outcome outcome = Outcome::kNone,
            std::string_view gone = {}) {
    return client_.get<bool>(
        [&](auto then) { return endings_.told(kind, ending, after_us, outcome, gone, then); });
  }
  SharedOrder::Known look(int number) {
    const std::string id = id_of(number);
    return client_.get<SharedOrder::Known>([&](auto then) { return order_.look(id, 0, then); });
  }
  SharedOrder::List list(std::string_view owner, bool dead = false, std::string_view before = {},
                         size_t most = 10) {
    return client_.get<SharedOrder::List>(
        [&](auto then) { return order_.list(owner, dead, before, most, 100, then); });
  }

  RedisServer server_{{}};
  OrderClient client_{server_.socket()};
  SharedOrder order_{client_.servers(), {.name = "q", .max_length = 100}, 60'000};
  Endings endings_{client_.servers(), order_.key()};
  int64_t lease_us_ = 60 * kSecondUs;
};

TEST_F(EndingsTest, OneHostAtATimeTellsAnEnd) {
  add(1, Mark::kTellsUrl);
  add(2, 0);
  end();
  const auto mine = take(Endings::kUrls);
  ASSERT_EQ(mine.taken.size(), 1U) << "the other's is told to nobody";
  EXPECT_EQ(mine.taken[0].id, id_of(1));
  EXPECT_EQ(mine.taken[0].owner, 7U);
  EXPECT_EQ(mine.taken[0].known.result, "answer");
  EXPECT_TRUE(take(Endings::kUrls).taken.empty());
  EXPECT_TRUE(told(Endings::kUrls, mine.taken[0], SharedOrder::kNever, Outcome::kDelivered));
  EXPECT_EQ(take(Endings::kUrls).all, 0U);
  EXPECT_EQ(server_.ask("KEYS " + order_.key() + "d|*"), "") << "nobody else is to hear";
  EXPECT_EQ(look(1).outcome, static_cast<uint8_t>(Outcome::kDelivered));
}

TEST_F(EndingsTest, WhoseLeaseHasEndedIsNotHeard) {
  add(1, Mark::kTellsUrl);
  end();
  lease_us_ = 0;
  const auto late = take(Endings::kUrls);
  lease_us_ = 60 * kSecondUs;
  const auto now = take(Endings::kUrls);
  ASSERT_EQ(now.taken.size(), 1U);
  EXPECT_FALSE(told(Endings::kUrls, late.taken[0]));
  const auto lost = client_.get<Endings::Ending>([&](auto then) {
    return endings_.look(Endings::kUrls, id_of(1), late.taken[0].fence, 100, lease_us_, then);
  });
  EXPECT_TRUE(lost.fence.empty());
  EXPECT_TRUE(told(Endings::kUrls, now.taken[0]));
}

TEST_F(EndingsTest, ATryThatFailedIsMadeAgainLater) {
  add(1, Mark::kTellsUrl);
  end();
  auto taken = take(Endings::kUrls).taken;
  taken[0].tries = 1;
  EXPECT_TRUE(told(Endings::kUrls, taken[0], 60 * kSecondUs));
  EXPECT_TRUE(take(Endings::kUrls).taken.empty());
  EXPECT_EQ(look(1).tries, 1U);
  EXPECT_GT(look(1).due_us, 50 * kSecondUs);
}

TEST_F(EndingsTest, EachHookHearsAndTheFeedToo) {
  lease_us_ = 60 * kSecondUs;
  EXPECT_TRUE(take(Endings::hook("a")).taken.empty());  // from now on hosts have it
  EXPECT_TRUE(take(Endings::hook("b")).taken.empty());
  add(1, Mark::kTellsHooks | Mark::kTellsFeed);
  end();
  for (const std::string& kind :
       {Endings::hook("a"), Endings::hook("b"), std::string(Endings::kFeed)}) {
    EXPECT_EQ(take(kind).taken.size(), 1U) << kind;
  }
}

TEST_F(EndingsTest, EachHostHearsOnceOfAnUrlThatIsGone) {
  add(1, Mark::kTellsUrl);
  end();
  told(Endings::kUrls, take(Endings::kUrls).taken[0], SharedOrder::kNever, Outcome::kGone,
       "http://x");
  Endings other(client_.servers(), order_.key());
  EXPECT_TRUE(take(Endings::kFeed, other).gone.empty());
  EXPECT_EQ(take(Endings::kUrls, other).gone, std::vector<std::string>{"http://x"});
  EXPECT_TRUE(take(Endings::kUrls, other).gone.empty());
}

TEST_F(EndingsTest, ListsHaveTheNewestFirstAndPages) {
  for (int i = 1; i <= 5; ++i) {
    add(i, 0);
  }
  const auto first = list(kAlice, false, {}, 3);
  ASSERT_EQ(first.jobs.size(), 3U);
  EXPECT_EQ(first.jobs[0].first, id_of(5));
  EXPECT_EQ(first.last, id_of(3));
  const auto rest = list("", false, first.last, 3);
  ASSERT_EQ(rest.jobs.size(), 2U);
  EXPECT_EQ(rest.jobs[1].first, id_of(1));
  EXPECT_TRUE(rest.last.empty());
}

TEST_F(EndingsTest, ADeadLetterKeepsItsBodyAndMayBeginAnew) {
  add(1, 0);
  end('X');
  EXPECT_EQ(list("", true).jobs.size(), 1U);
  const std::string id = id_of(1);
  EXPECT_EQ(client_.get<std::string>([&](auto then) { return order_.body(id, then); }),
            "what was asked");
  client_.get<SharedOrder::Added>([&](auto then) {
    return order_.add({.id = id, .lane = "m", .listed = kAlice, .anew = true, .body = "b"}, then);
  });
  EXPECT_EQ(look(1).state, SharedOrder::Known::State::kWaiting);
  EXPECT_TRUE(list("", true).jobs.empty());
}

class EndThatHoldsTest : public EndingsTest {
 protected:
  EndThatHoldsTest() { add(1, 0); }
  uint64_t take_and_end(char how) {
    end(how);
    return look(1).fence;
  }
  SharedOrder::End mend(uint64_t fence, char how) {
    const std::string id = id_of(1);
    return client_.get<SharedOrder::End>(
        [&](auto then) { return order_.mend(id, fence, how, "answer", 0, then); });
  }
  void begin_anew() {
    const std::string id = id_of(1);
    client_.get<SharedOrder::Added>([&](auto then) {
      return order_.add({.id = id, .lane = "m", .listed = kAlice, .anew = true, .body = "b"}, then);
    });
  }
};

TEST_F(EndThatHoldsTest, WhatRedisHasLostIsSaidAgain) {
  server_.keep_copy();
  const uint64_t fence = take_and_end('D');
  server_.go_back_to_copy();
  EXPECT_EQ(look(1).state, SharedOrder::Known::State::kWaiting);
  EXPECT_EQ(mend(fence, 'D'), SharedOrder::End::kEnded);
  EXPECT_EQ(look(1).result, "answer");
}

TEST_F(EndThatHoldsTest, WhatIsSaidAgainOfAJobThatIsNotThereGoesByItself) {
  for (const char how : {'D', 'X', 'L', 'C', 'E'}) {
    server_.ask("FLUSHALL");
    EXPECT_EQ(mend(7, how), SharedOrder::End::kEnded);
    EXPECT_EQ(mend(7, how), SharedOrder::End::kOver);
    EXPECT_EQ(look(1).result, "answer");
    EXPECT_EQ(server_.ask("DBSIZE"), "1") << "nobody else would remove it";
    const int64_t ms = std::stoll(*server_.ask("PTTL " + order_.key() + "j|" + id_of(1)));
    EXPECT_TRUE(ms > 0 && ms <= 60'000) << ms;
  }
}

TEST_F(EndThatHoldsTest, WhoRunsItOnceMoreStops) {
  const uint64_t first = 1;
  client_.get<SharedOrder::Served>(
      [&](auto then) { return order_.serve(kHost, "m", 1, {}, then); });
  const uint64_t fence = look(1).fence;
  Channel runner(server_.socket(), order_.key() + "c|" + kHost);
  EXPECT_EQ(mend(first, 'D'), SharedOrder::End::kEnded);
  EXPECT_EQ(runner.next(), "stop " + id_of(1) + " " + std::to_string(fence));
  EXPECT_EQ(look(1).result, "answer");
}

TEST_F(EndThatHoldsTest, ADeadLetterThatHasBegunAnewGoesOn) {
  const uint64_t fence = take_and_end('X');
  begin_anew();
  EXPECT_EQ(mend(fence, 'X'), SharedOrder::End::kNotOurs);
  EXPECT_EQ(look(1).state, SharedOrder::Known::State::kWaiting);
  server_.keep_copy();
  const uint64_t last = take_and_end('D');
  EXPECT_GT(last, fence);
  server_.go_back_to_copy();
  EXPECT_EQ(mend(last, 'D'), SharedOrder::End::kEnded) << "of this life";
}

TEST_F(EndThatHoldsTest, ADeadLetterThatWasDroppedStaysSo) {
  const uint64_t fence = take_and_end('X');
  const std::string id = id_of(1);
  EXPECT_TRUE(client_.get<bool>([&](auto then) { return order_.drop(id, then); }));
  EXPECT_EQ(mend(fence, 'X'), SharedOrder::End::kNotOurs);
  EXPECT_EQ(look(1).state, SharedOrder::Known::State::kUnknown);
}

TEST_F(EndingsTest, WhatIsNotKeptLeavesItsListsAndItsKeyIsGone) {
  const std::string id = id_of(1);
  client_.get<SharedOrder::Added>([&](auto then) {
    return order_.add({.id = id,
                       .lane = "m",
                       .key = "0123456789abcdef0123456789abcdef",
                       .key_is = "d",
                       .key_ms = 2'592'000'000,
                       .listed = kAlice,
                       .body = "b"},
                      then);
  });
  add(2, 0);
  end('X');
  server_.ask("ZADD test:q1:{q}:z 0 job_of-nobody");  // of those that are in no other list
  for (const char* const gone : {"1", "2"}) {
    server_.ask("DEL test:q1:{q}:j|" + id_of(std::stoi(gone)));
  }
  client_.get<bool>([&](auto then) { return order_.sweep(then); });
  for (const char* const key : {"k|0123456789abcdef0123456789abcdef", "u", "z"}) {
    EXPECT_EQ(server_.ask("EXISTS test:q1:{q}:" + std::string(key)), "0") << key;
  }
}

}  // namespace
}  // namespace penstock::queue
