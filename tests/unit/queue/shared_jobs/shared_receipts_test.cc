// What one host does about what was charged for its jobs, and for others'.
#include "worker/queue/shared_jobs/shared_receipts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

constexpr char kHome[] = "home-one";

class SharedReceiptsTest : public testing::Test {
 protected:
  struct Host final : SharedReceipts::User {
    explicit Host(const std::string& socket) : client(socket) {
      receipts.use(*this);
      EXPECT_TRUE(client.until_ready());
    }
    bool settles() const override { return listens; }
    bool settles_others() const override { return listens; }
    void on_inherited(const Receipts::Inherited& each) override { inherited.push_back(each.id); }
    bool until(const std::function<bool()>& is_so) {
      return client.until([&] {
        receipts.flush(home, now_ns += kNsPerSec);
        return is_so();
      });
    }

    OrderClient client;
    SharedOrder order{client.servers(), {.name = "q", .max_length = 1000}, 60'000};
    SharedReceipts receipts{client.servers(), order.key()};
    std::string home = kHome;
    bool listens = true;
    std::vector<std::string> inherited;
    int64_t now_ns = monotonic_ns();
  };

  // It is over.
  void add(Host& host, std::string_view id) {
    host.client.get<SharedOrder::Added>([&](auto then) {
      return host.order.add({.id = id, .lane = "m", .home = kHome, .body = "asked"}, then);
    });
    host.client.get<SharedOrder::End>(
        [&](auto then) { return host.order.cancel(id, "the end", then); });
  }
  std::string redis(Host& host, const std::string& command, const std::string& key) {
    return server_.ask(command + " " + host.order.key() + key).value_or("no answer");
  }

  RedisServer server_{{}};
};

TEST_F(SharedReceiptsTest, WhatIsSettledBeforeItWasNotedIsNotNoted) {
  Host host(server_.socket());
  std::vector<SharedReceipts::Whose> told;
  const auto tell = [&](SharedReceipts::Whose whose) { told.push_back(whose); };
  host.receipts.note("1", "a receipt");
  host.receipts.settle("1", tell);
  host.receipts.note("2", "a receipt");
  ASSERT_TRUE(host.until([&] { return told.size() == 1; }));
  EXPECT_EQ(told[0], SharedReceipts::Whose::kAgain);
  EXPECT_EQ(redis(host, "GET", "m|1"), "S");
  EXPECT_EQ(redis(host, "GET", "m|2"), "home-onea receipt");
  host.receipts.settle("2", tell);
  ASSERT_TRUE(host.until([&] { return told.size() == 2; }));
  EXPECT_EQ(told[1], SharedReceipts::Whose::kOurs);
}

TEST_F(SharedReceiptsTest, WhatIsAboutToBeSettledIsNotNotedAgain) {
  Host host(server_.socket());
  std::vector<SharedReceipts::Whose> told;
  server_.stop_answering();
  host.receipts.note("1", "a receipt");
  host.receipts.flush(host.home, ++host.now_ns);
  host.receipts.settle("1", [&](SharedReceipts::Whose whose) { told.push_back(whose); });
  host.receipts.flush(host.home, ++host.now_ns);
  server_.kill();  // it has heard neither
  server_.start();
  ASSERT_TRUE(host.until([&] { return told.size() == 1; }));
  EXPECT_EQ(told[0], SharedReceipts::Whose::kAgain);
  EXPECT_EQ(redis(host, "GET", "m|1"), "S");
}

TEST_F(SharedReceiptsTest, WhileRedisIsAwayItIsNotAskedAllTheTime) {
  Host host(server_.socket());
  server_.kill();
  ASSERT_TRUE(host.client.until([&] { return !host.client.servers().ready("x"); }));
  host.receipts.note("1", "a receipt");
  const int64_t before_ns = monotonic_ns();
  host.receipts.flush(host.home, 1);  // it was to look for homes long ago, too
  EXPECT_GE(host.receipts.next_event(), before_ns + SharedReceipts::kRetryNs);
}

TEST_F(SharedReceiptsTest, WithoutAnEdgeNothingIsSettledNorInherited) {
  Host host(server_.socket());
  host.listens = false;
  bool told = false;
  host.receipts.note("1", "a receipt");
  host.receipts.note("2", "a receipt");
  for (const char* const id : {"1", "2"}) {
    add(host, id);
  }
  ASSERT_TRUE(host.until([&] { return redis(host, "EXISTS", "m|2") == "1"; }));
  host.receipts.settle("1", [&](SharedReceipts::Whose) { told = true; });
  server_.ask("ZADD " + host.order.key() + "M 0 " + kHome);
  for (int i = 0; i < 20; ++i) {
    host.until([] { return true; });
  }
  EXPECT_FALSE(told);
  EXPECT_EQ(redis(host, "GET", "m|1"), "home-onea receipt");
  host.listens = true;
  EXPECT_TRUE(host.until([&] { return told && host.inherited.size() == 1; }));
  EXPECT_EQ(host.inherited, std::vector<std::string>{"2"});
}

TEST_F(SharedReceiptsTest, OfTwoHostsThatLookAtOnceEachJobIsInheritedByOne) {
  Host first(server_.socket());
  Host second(server_.socket());
  std::vector<std::string> ids;
  for (int i = 0; i < 100; ++i) {
    ids.push_back(std::to_string(100 + i));
    add(first, ids.back());
    first.receipts.note(ids.back(), "a receipt");
  }
  ASSERT_TRUE(first.until([&] { return redis(first, "ZCARD", "M|home-one") == "100"; }));
  EXPECT_TRUE(first.inherited.empty()) << "while the home is there";
  server_.ask("ZADD " + first.order.key() + "M 0 " + kHome);
  const auto count = [&] { return first.inherited.size() + second.inherited.size(); };
  ASSERT_TRUE(first.until([&] { return second.until([] { return true; }) && count() >= 100; }));
  first.inherited.insert(first.inherited.end(), second.inherited.begin(), second.inherited.end());
  std::sort(first.inherited.begin(), first.inherited.end());
  EXPECT_EQ(first.inherited, ids);
}

}  // namespace
}  // namespace penstock::queue
