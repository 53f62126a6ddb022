// What hosts say of themselves, in the versions that there are.
#include "worker/queue/shared_jobs/roster.h"

#include <gtest/gtest.h>

#include "shared/wire/message_codec.h"
#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

HostSays some_host() {
  return {.name = "gpu-1",
          .version = "1.2.3",
          .lease = "abcdefgh",
          .since_ms = 1'795'960'980'000,
          .draining = true,
          .unsent = 3,
          .models = {{.name = "sim",
                      .written = "/models/sim",
                      .slots = 4,
                      .running = 3,
                      .workers = 2,
                      .ready = 1,
                      .mean_ns = 1.5e9,
                      .spread = 0.25,
                      .seen = 100}}};
}

TEST(HostSaysTest, IsReadAsItWasSaid) {
  const HostSays said = some_host();
  const auto heard = decode_host(encode(said, 4096));
  ASSERT_TRUE(heard);
  EXPECT_EQ(heard->name, "gpu-1");
  EXPECT_EQ(heard->version, "1.2.3");
  EXPECT_EQ(heard->lease, "abcdefgh");
  EXPECT_EQ(heard->since_ms, said.since_ms);
  EXPECT_TRUE(heard->draining);
  EXPECT_EQ(heard->unsent, 3U);
  ASSERT_EQ(heard->models.size(), 1U);
  const HostSays::Model& model = heard->models[0];
  EXPECT_EQ(model.name, "sim");
  EXPECT_EQ(model.written, "/models/sim");
  EXPECT_EQ(model.slots, 4U);
  EXPECT_EQ(model.running, 3U);
  EXPECT_EQ(model.workers, 2U);
  EXPECT_EQ(model.ready, 1U);
  EXPECT_NEAR(model.mean_ns, 1.5e9, 1e3);
  EXPECT_NEAR(model.spread, 0.25, 1e-5);
  EXPECT_EQ(model.seen, 100);
}

struct Later {  // of a version that says more
  static constexpr wire::FrameType kType = wire::FrameType::kOver;
  std::string_view name, news;
  uint64_t number = 7;
  template <typename V>
  void visit(V&& v) {
    v(1, name), v(90, news), v(91, number);
  }
};

TEST(HostSaysTest, WhatALaterVersionAddsIsPassedOver) {
  std::string bytes;
  wire::append(bytes, 1, Later{.name = "new", .news = "more"});
  wire::append(bytes, 9, Later{.name = "a frame of which nobody knows", .news = "more"});
  wire::append(bytes, 2, Later{.name = "sim", .news = "more"});
  const auto heard = decode_host(bytes);
  ASSERT_TRUE(heard);
  EXPECT_EQ(heard->name, "new");
  ASSERT_EQ(heard->models.size(), 1U);
  EXPECT_EQ(heard->models[0].name, "sim");
  EXPECT_EQ(heard->models[0].slots, 0U);
}

TEST(HostSaysTest, WhatIsNoSuchThingIsPassedOver) {
  for (const std::string_view bytes :
       {"", "sim\t/models/sim\n", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"}) {
    EXPECT_FALSE(decode_host(bytes)) << bytes;
  }
}

TEST(HostSaysTest, OfManyModelsThoseAreSaidThatFit) {
  HostSays says = some_host();
  says.name = std::string(1000, 'n');
  says.models.resize(1000, says.models[0]);
  const std::string bytes = encode(says, 4096);
  EXPECT_LE(bytes.size(), 4096U);
  EXPECT_GT(decode_host(bytes)->models.size(), 10U);
  const auto beginning = decode_host(std::string_view(bytes).substr(0, SharedOrder::kGoneBytes));
  ASSERT_TRUE(beginning);  // is what is known of one that is gone
  EXPECT_EQ(beginning->version, "1.2.3");
}

// ---- several hosts, by a Redis

class RosterTest : public testing::Test {
 protected:
  struct Host final : Roster::User {
    Host(SharedOrder& order, HostSays says) : saying(std::move(says)), roster(order, *this) {}
    HostSays says() const override { return saying; }
    std::string kept_secret() const override { return {}; }
    void keep_secret(const std::string&) override {}
    void on_roster() override { ++heard; }
    HostSays saying;
    int heard = 0;
    Roster roster;
  };
  void tell(Host& host) {
    ASSERT_TRUE(client_.until_ready());
    const int before = host.heard;
    host.roster.tell({});
    client_.until([&] { return host.heard > before; });
  }
  static HostSays serving(uint32_t slots, uint32_t running, double mean_ns, double seen = 10) {
    return {.name = "h",
            .models = {{.name = "sim",
                        .slots = slots,
                        .running = running,
                        .workers = 1,
                        .ready = 1,
                        .mean_ns = mean_ns,
                        .spread = 0.5,
                        .seen = seen}}};
  }

  RedisServer server_;
  OrderClient client_{server_.socket()};
  SharedOrder order_{client_.servers(), {.name = "q", .max_length = 1000}, 60'000};
};

TEST_F(RosterTest, SlotsOfAllHostsAreAddedAndFastOnesCountForMore) {
  Host edge(order_, {.name = "edge"}), fast(order_, serving(4, 1, 1e9)),
      slow(order_, serving(4, 4, 3e9)), fresh(order_, serving(2, 0, 0, 0));
  for (Host* const each : {&fast, &slow, &fresh, &edge}) {
    tell(*each);
  }
  const AllHosts all = edge.roster.workers("sim");
  EXPECT_EQ(all.hosts, 4U);
  EXPECT_EQ(all.slots, 10U);
  EXPECT_EQ(all.running, 5U);
  EXPECT_EQ(all.workers, 3U);
  EXPECT_NEAR(all.mean_ns, 1.5e9, 1e6);  // 4 a second and 4 in 3 s, of 8
  EXPECT_EQ(edge.roster.workers("").slots, 10U);
  EXPECT_EQ(edge.roster.workers("other").slots, 0U);
  ASSERT_NE(edge.roster.find_model("sim"), nullptr);
  EXPECT_EQ(edge.roster.find_model("other"), nullptr);
}

TEST_F(RosterTest, AHostThatLeavesIsKnownToHaveLeft) {
  Host edge(order_, {.name = "edge"}), gpu(order_, serving(4, 1, 1e9));
  tell(gpu);
  gpu.roster.leave();
  tell(edge);
  EXPECT_EQ(edge.roster.hosts().size(), 1U);
  ASSERT_EQ(edge.roster.gone().size(), 1U);
  EXPECT_TRUE(edge.roster.gone()[0].says.left);
  EXPECT_EQ(edge.roster.workers("sim").slots, 0U);
}

TEST_F(RosterTest, AModelOfAHostThatIsGoneIsKnownUntilThatIsBackWithoutIt) {
  Host edge(order_, {.name = "edge", .since_ms = 9}), gpu(order_, serving(4, 1, 1e9)),
      again(order_, {.name = "h", .since_ms = 1});
  tell(gpu);
  gpu.roster.leave();
  tell(edge);
  EXPECT_TRUE(edge.roster.models().empty());
  ASSERT_EQ(edge.roster.models_away().size(), 1U);
  ASSERT_NE(edge.roster.find_model("sim"), nullptr);
  EXPECT_EQ(*edge.roster.find_model("sim"), "sim");
  EXPECT_NE(edge.roster.find_model(""), nullptr);
  EXPECT_EQ(edge.roster.workers("sim").attending, 0U);
  tell(again);
  tell(edge);
  EXPECT_EQ(edge.roster.find_model("sim"), nullptr);
  EXPECT_EQ(edge.roster.find_model(""), nullptr);
}

TEST_F(RosterTest, AllModelsOfAHostThatIsGoneAreKnownToWhoHasHeardThem) {
  HostSays says = serving(1, 0, 1e9);
  for (int i = 0; i < 100; ++i) {
    says.models.push_back(says.models.front());
    says.models.back().name = "model-" + std::to_string(i);
  }
  Host edge(order_, {.name = "edge"}), late(order_, {.name = "late"}), gpu(order_, says);
  tell(gpu);
  tell(edge);
  gpu.roster.leave();
  for (int i = 0; i < 2; ++i) {
    tell(edge);
    EXPECT_EQ(edge.roster.models_away().size(), 101U);
  }
  tell(late);
  EXPECT_GT(late.roster.models_away().size(), 0U);
  EXPECT_LT(late.roster.models_away().size(), 101U);
}

}  // namespace
}  // namespace penstock::queue
