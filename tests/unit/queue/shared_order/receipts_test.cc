// What was charged for jobs, as hosts share it out among them in Redis.
#include "worker/queue/shared_order/receipts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

using Whose = Receipts::Whose;

constexpr int64_t kSecondUs = 1'000'000;
constexpr char kHome[] = "home-one";
constexpr char kRunner[] = "runner-1";

class ReceiptsTest : public testing::Test {
 protected:
  ReceiptsTest() {
    at(0);
    renew(kRunner, SharedOrder::Life::kJoins, "");
    renew("lease--1", SharedOrder::Life::kJoins, kHome);
  }
  void at(int64_t seconds) {
    const int64_t now_us = 1'900'000'000 * kSecondUs + seconds * kSecondUs;
    order_.set_clock(now_us);
    receipts_.set_clock(now_us);
  }
  void renew(std::string_view host, SharedOrder::Life life, std::string_view home) {
    client_.get<SharedOrder::Renewed>(
        [&](auto then) { return order_.renew(host, life, 3600 * kSecondUs, then, home); });
  }
  void add(std::string_view id) {
    client_.get<SharedOrder::Added>([&](auto then) {
      return order_.add({.id = id, .lane = "m", .home = kHome, .body = "what was asked"}, then);
    });
  }
  void charge(std::string_view id, std::string receipt = "a receipt") {
    const Receipts::Charged job{std::string(id), std::move(receipt)};
    client_.get<bool>([&](auto then) { return receipts_.charge(kHome, {&job, 1}, then); });
  }
  // All that wait.
  void end() {
    const auto serve = [&](const std::vector<SharedOrder::Finished>& finished) {
      return client_.get<SharedOrder::Served>([&](auto then) {
        return order_.serve(kRunner, "m", finished.empty() ? 16 : 0, finished, then);
      });
    };
    const SharedOrder::Served served = serve({});
    std::vector<SharedOrder::Finished> finished;
    for (const SharedOrder::Taken& job : served.taken) {
      finished.push_back({.id = job.id, .fence = job.fence, .result = "answer"});
    }
    serve(finished);
  }
  std::vector<Whose> settle(const std::vector<std::string_view>& ids) {
    return client_.get<std::vector<Whose>>([&](auto then) { return receipts_.settle(ids, then); });
  }
  Receipts::Page inherit(size_t most = 10) {
    return client_.get<Receipts::Page>(
        [&](auto then) { return receipts_.inherit(most, 100, 1000, then); });
  }
  std::string redis(const std::string& command) {
    return server_.ask(command).value_or("no answer");
  }

  RedisServer server_{{}};
  OrderClient client_{server_.socket()};
  SharedOrder order_{client_.servers(), {.name = "q", .max_length = 1000}, 86'400'000};
  Receipts receipts_{client_.servers(), order_.key()};
};

TEST_F(ReceiptsTest, AHomeThatLivesSettlesItself) {
  add("1");
  charge("1");
  end();
  for (int seconds = 0; seconds < 100; seconds += 20) {
    at(seconds);
    renew("lease--1", SharedOrder::Life::kStays, kHome);
    EXPECT_TRUE(inherit().all.empty()) << seconds;
  }
  EXPECT_EQ(settle({"1"}), std::vector{Whose::kOurs});
  EXPECT_EQ(settle({"1"}), std::vector{Whose::kAgain}) << "it was said before";
  at(1000);
  EXPECT_TRUE(inherit().all.empty());
}

TEST_F(ReceiptsTest, WhatAHomeThatIsGoneChargedIsInheritedOnce) {
  add("1");
  charge("1", std::string("re\0ceipt", 8));
  end();
  at(29);
  EXPECT_TRUE(inherit().all.empty());
  at(31);
  const Receipts::Page page = inherit();
  ASSERT_EQ(page.all.size(), 1U);
  EXPECT_EQ(page.all[0].id, "1");
  EXPECT_EQ(page.all[0].receipt, std::string("re\0ceipt", 8));
  EXPECT_EQ(page.all[0].known.state, SharedOrder::Known::State::kOver);
  EXPECT_EQ(page.all[0].known.how, 'D');
  EXPECT_EQ(page.all[0].known.result, "answer");
  EXPECT_FALSE(page.more);
  EXPECT_TRUE(inherit().all.empty()) << "by whoever asks next";
  EXPECT_EQ(settle({"1"}), std::vector{Whose::kSettled}) << "its home is back";
  charge("1");  // and what it said then comes late
  EXPECT_EQ(settle({"1"}), std::vector{Whose::kSettled});
  EXPECT_TRUE(inherit().all.empty());
}

TEST_F(ReceiptsTest, WhatTheHomeIsAboutToSettleNobodyInherits) {
  add("1");
  charge("1");
  end();
  EXPECT_EQ(settle({"1"}), std::vector{Whose::kOurs});
  charge("1");  // said earlier, and heard later
  at(100);
  EXPECT_TRUE(inherit().all.empty());
}

TEST_F(ReceiptsTest, AJobThatStillRunsIsInheritedOnceItIsOver) {
  add("1");
  charge("1");
  at(31);
  EXPECT_TRUE(inherit().all.empty());
  at(62);
  EXPECT_TRUE(inherit().all.empty());
  end();
  at(95);
  EXPECT_EQ(inherit().all.size(), 1U);
  at(1000);
  EXPECT_TRUE(inherit().all.empty());
}

TEST_F(ReceiptsTest, AHomeThatIsBackInBetweenKeepsTheRest) {
  add("1");
  charge("1");
  end();
  add("2");
  charge("2");
  at(31);
  EXPECT_EQ(inherit().all.size(), 1U);
  at(40);
  renew("lease--1", SharedOrder::Life::kStays, kHome);
  end();
  at(69);
  EXPECT_TRUE(inherit().all.empty());
  EXPECT_EQ(settle({"1", "2", "3"}), (std::vector{Whose::kSettled, Whose::kOurs, Whose::kAgain}));
}

TEST_F(ReceiptsTest, ManyAreInheritedSomeAtATime) {
  for (int i = 0; i < 40; ++i) {
    const std::string id = std::to_string(100 + i);
    add(id);
    charge(id);
  }
  for (int i = 0; i < 4; ++i) {
    end();
  }
  at(31);
  std::vector<std::string> ids;
  for (bool more = true; more;) {
    const Receipts::Page page = inherit(16);
    EXPECT_LE(page.all.size(), 16U);
    for (const Receipts::Inherited& each : page.all) {
      ids.push_back(each.id);
    }
    more = page.more;
  }
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(ids.size(), 40U);
  EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end());
}

TEST_F(ReceiptsTest, OfAJobThatNobodyKnowsAnyMoreNothingIsLeft) {
  add("1");
  charge("1");
  redis("DEL " + order_.key() + "j|1");
  at(31);
  EXPECT_TRUE(inherit().all.empty());
  for (const char* const key : {"m|1", "M", "M|home-one"}) {
    EXPECT_EQ(redis("EXISTS " + order_.key() + key), "0") << key;
  }
}

TEST_F(ReceiptsTest, WhatIsNotOursThereIsPassedOver) {
  for (const char* const id : {"1", "2", "3"}) {
    add(id);
    charge(id);
  }
  end();
  redis("SET " + order_.key() + "j|1 \x05junk");
  redis("DEL " + order_.key() + "j|2");
  redis("LPUSH " + order_.key() + "j|2 junk");
  at(31);
  EXPECT_ANY_THROW(inherit());
  EXPECT_ANY_THROW(inherit());
  EXPECT_EQ(inherit().all.size(), 1U);
}

TEST_F(ReceiptsTest, WhatNobodySettlesIsGoneAfterTwoMonths) {
  constexpr int64_t kDayMs = 86'400'000;
  add("1");
  charge("1");
  end();
  const int64_t left_ms = std::stoll(redis("PTTL " + order_.key() + "m|1"));
  EXPECT_GT(left_ms, 61 * kDayMs);
  EXPECT_LE(left_ms, 62 * kDayMs);
  redis("DEL " + order_.key() + "m|1");
  at(31);
  EXPECT_TRUE(inherit().all.empty());
  EXPECT_EQ(redis("EXISTS " + order_.key() + "M"), "0");
}

}  // namespace
}  // namespace penstock::queue
