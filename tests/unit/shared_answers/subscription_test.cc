#include "shared/redis/subscription.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/shared_answers/hosts.h"

namespace penstock::queue {
namespace {

class Ear final : public redis::Subscription::Listener {
 public:
  void on_listening(std::string_view) override { ++listening; }
  void on_message(std::string_view channel, std::string_view text) override {
    heard.push_back(std::string(channel) + ": " + std::string(text));
    on_heard();
  }
  std::vector<std::string> heard;
  int listening = 0;
  std::function<void()> on_heard = [] {};
};

class SubscriptionTest : public testing::Test {
 protected:
  bool until(const std::function<bool()>& is_so) { return turns_.until(is_so); }
  void publish(const std::string& channel, const std::string& text) {
    server_.ask("PUBLISH " + channel + " " + text);
  }

  RedisServer server_;
  Turns turns_;
  Host host_{turns_, server_.socket()};
  Ear ear_;
};

TEST_F(SubscriptionTest, HearsItsChannelsAlone) {
  host_.subscription.listen("a", ear_);
  ASSERT_TRUE(until([&] { return ear_.listening == 1; }));
  host_.subscription.listen("b", ear_);
  ASSERT_TRUE(until([&] { return ear_.listening == 2; }));
  publish("a", "one");
  publish("c", "two");
  publish("b", "three");
  ASSERT_TRUE(until([&] { return ear_.heard.size() == 2; }));
  EXPECT_EQ(ear_.heard, (std::vector<std::string>{"a: one", "b: three"}));
}

TEST_F(SubscriptionTest, HearsAChannelThatIsLeftAndComesAgainAtOnce) {
  host_.subscription.listen("a", ear_);
  ASSERT_TRUE(until([&] { return ear_.listening == 1; }));
  host_.subscription.leave("a");
  host_.subscription.listen("a", ear_);
  ASSERT_TRUE(until([&] { return ear_.listening == 2; }));
  publish("a", "one");
  ASSERT_TRUE(until([&] { return ear_.heard.size() == 1; }));
}

TEST_F(SubscriptionTest, AListenerMayLeaveWhileItHears) {
  host_.subscription.listen("a", ear_);
  ear_.on_heard = [&] { host_.subscription.leave("a"); };
  ASSERT_TRUE(until([&] { return ear_.listening == 1; }));
  publish("a", "one");
  ASSERT_TRUE(until([&] { return ear_.heard.size() == 1; }));
  Ear other;
  host_.subscription.listen("b", other);  // behind what is left
  ASSERT_TRUE(until([&] { return other.listening == 1; }));
  publish("a", "two");
  publish("b", "three");
  ASSERT_TRUE(until([&] { return other.heard.size() == 1; }));
  EXPECT_EQ(ear_.heard.size(), 1U);
}

TEST_F(SubscriptionTest, ListensAgainOnceRedisIsThereAgain) {
  host_.subscription.listen("a", ear_);
  ASSERT_TRUE(until([&] { return ear_.listening == 1; }));
  server_.kill();
  ASSERT_TRUE(until([&] { return !host_.subscription.up(); }));
  EXPECT_TRUE(host_.subscription.why().starts_with("Redis at unix:")) << host_.subscription.why();
  server_.start();
  ASSERT_TRUE(until([&] { return ear_.listening == 2; }));
  publish("a", "one");
  ASSERT_TRUE(until([&] { return ear_.heard.size() == 1; }));
}

TEST_F(SubscriptionTest, AServerThatDoesNotAnswerIsLeft) {
  ASSERT_TRUE(until([&] { return host_.up(); }));
  server_.stop_answering();
  EXPECT_TRUE(until([&] { return !host_.subscription.up(); }));
  server_.go_on();
  EXPECT_TRUE(until([&] { return host_.up(); }));
}

TEST_F(SubscriptionTest, AQuietServerIsNotLeft) {
  ASSERT_TRUE(until([&] { return host_.up(); }));
  const int64_t end_ns = monotonic_ns() + 1700 * kNsPerMs;
  EXPECT_TRUE(until([&] { return monotonic_ns() > end_ns || !host_.subscription.up(); }));
  EXPECT_TRUE(host_.subscription.up());
}

TEST(SubscriptionPasswordTest, SaysThePassword) {
  const RedisServer server({"--requirepass", "secret"});
  Turns turns;
  Host host(turns, server.socket(), "secret");
  EXPECT_TRUE(turns.until([&] { return host.up(); }));
}

}  // namespace
}  // namespace penstock::queue
