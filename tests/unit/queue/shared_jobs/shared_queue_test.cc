// What a host says to Redis of a queue that hosts share, and when.
#include "worker/queue/shared_jobs/shared_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/queue/shared_order/order_client.h"

namespace penstock::queue {
namespace {

class SharedQueueTest : public ::testing::Test, SharedQueue::User {
 protected:
  SharedQueueTest()
      : client_(redis_.socket()),
        queue_(client_.servers(), client_.loop(), *this, "here", {.name = "q"}, kNsPerSec, {}) {
    EXPECT_TRUE(until([this] { return !queue_.host().empty() && queue_.is_there(); }));
    // It listens once it has heard something.
    queue_.await_end("news");
    EXPECT_TRUE(until([this] {
      redis_.ask("EVAL redis.call('PUBLISH','" + queue_.key() + "c|" + queue_.host() +
                 "','over'..string.char(32)..'news') 0");
      return heard_;
    }));
  }

  bool until(const std::function<bool()>& is_so) {
    return client_.until([&] {
      queue_.advance_to(monotonic_ns());
      queue_.flush();
      return is_so();
    });
  }
  void add(std::string id) {
    bool told = false;
    queue_.add({.id = std::move(id), .lane = "m"},
               [&](SharedQueue::Outcome outcome, const SharedOrder::Added&) {
                 EXPECT_EQ(outcome, SharedQueue::Outcome::kAdded);
                 told = true;
               });
    EXPECT_TRUE(until([&] { return told; }));
  }
  void serve_and_hear() {
    queue_.serve("m", 4);
    hear();
  }
  void hear() {
    EXPECT_TRUE(until([this] { return queue_.coming("m") == 0; }));
  }

  RedisServer redis_;
  OrderClient client_;
  SharedQueue queue_;
  std::vector<std::string> taken_;
  std::vector<std::string> over_;  // as was heard
  bool stops_ = false;             // it gives back what comes

 private:
  bool heard_ = false;

  void on_taken(SharedQueue&, const SharedOrder::Taken& job) override {
    taken_.push_back(job.id);
    if (stops_) {
      queue_.give_back(job.id, 0, std::nullopt);
    }
  }
  void on_lost(SharedQueue&, const std::string&) override {}
  void on_position(SharedQueue&, const std::string& id, int64_t) override {
    heard_ = true;
    if (id != "news") {
      over_.push_back(id);
    }
  }
  std::string on_asked(SharedQueue&, std::string_view) override { return {}; }
  HostSays says(const SharedQueue&) const override { return {}; }
  void on_roster(SharedQueue&) override {}
};

TEST_F(SharedQueueTest, AnEmptyLaneIsLeftAloneUntilSomethingIsHeardOfIt) {
  serve_and_hear();
  EXPECT_FALSE(queue_.may_serve("m"));
  queue_.wake("m");
  EXPECT_TRUE(queue_.may_serve("m"));
}

// Hints and answers come over two connections: a hint may be read before the answer it follows.
TEST_F(SharedQueueTest, AJobThatIsHeardOfBeforeTheAnswerThatHadNoneIsAskedFor) {
  queue_.serve("m", 4);
  queue_.wake("m");
  hear();
  EXPECT_TRUE(queue_.may_serve("m"));
  serve_and_hear();
  EXPECT_FALSE(queue_.may_serve("m"));
  queue_.serve("m", 4);
  queue_.wake("");  // for workers of any model
  hear();
  EXPECT_TRUE(queue_.may_serve("m"));
}

TEST_F(SharedQueueTest, AJobThatComesIsTaken) {
  serve_and_hear();
  add("1");
  ASSERT_TRUE(queue_.may_serve("m"));
  serve_and_hear();
  EXPECT_EQ(taken_, std::vector<std::string>{"1"});
}

TEST_F(SharedQueueTest, WhoLeavesGivesBackWhatIsOnItsWay) {
  add("1");
  queue_.serve("m", 4);
  stops_ = true;
  queue_.leave();
  EXPECT_FALSE(queue_.has_left());
  EXPECT_TRUE(until([this] { return queue_.has_left(); }));
  EXPECT_EQ(taken_, std::vector<std::string>{"1"});
  const auto job =
      client_.get<SharedOrder::Known>([&](auto then) { return queue_.order().look("1", 0, then); });
  EXPECT_EQ(job.state, SharedOrder::Known::State::kWaiting);
}

TEST_F(SharedQueueTest, WhoseJobItIsNotEndsNothing) {
  std::optional<SharedOrder::End> end;
  queue_.finish("none", {}, 0, 'D', [&](SharedOrder::End is) { end = is; });
  queue_.give_back("none", 0, std::nullopt);
  EXPECT_TRUE(until([&] { return end.has_value() && queue_.unsent() == 0; }));
  EXPECT_EQ(end, SharedOrder::End::kOver) << "it is not there";
}

// Redis has lost that it was taken, and gives it to the same host while that says how it ended.
TEST_F(SharedQueueTest, AJobThatIsTakenOnceMoreEndsByThatTaking) {
  add("1");
  serve_and_hear();
  const uint64_t fence = queue_.fence_of("1");
  client_.get<SharedOrder::End>([&](auto then) {
    return queue_.order().requeue({.id = "1", .host = queue_.host(), .fence = fence, .result = {}},
                                  0, then);
  });
  queue_.serve("m", 1);
  std::optional<SharedOrder::End> end;
  queue_.finish("1", "answer", 0, 'D', [&](SharedOrder::End is) { end = is; });
  EXPECT_TRUE(until([&] { return end.has_value(); }));
  EXPECT_EQ(end, SharedOrder::End::kEnded);
  EXPECT_EQ(queue_.fence_of("1"), 0U);
  EXPECT_EQ(taken_, (std::vector<std::string>{"1", "1"}));
}

TEST_F(SharedQueueTest, OfOneThatComesTwiceAtOnceBothAreTold) {
  int told = 0;
  for (int i = 0; i < 2; ++i) {
    queue_.add({.id = "1", .lane = "m"}, [&](SharedQueue::Outcome outcome, const auto&) {
      told += outcome == SharedQueue::Outcome::kAdded ? 1 : 0;
    });
  }
  EXPECT_TRUE(until([&] { return told == 2; }));
}

// What comes within a turn goes in one request.
TEST_F(SharedQueueTest, OfThoseThatComeTogetherOnlyTheOneIsRefusedThatRedisCannotTake) {
  redis_.ask("SADD " + queue_.key() + "j|2 x");
  std::map<std::string, SharedQueue::Outcome> outcomes;
  for (const char* const id : {"0", "1", "2", "3"}) {
    queue_.add({.id = id, .lane = "m"}, [&outcomes, id](SharedQueue::Outcome outcome, const auto&) {
      outcomes[id] = outcome;
    });
  }
  EXPECT_TRUE(until([&] { return outcomes.size() == 4; }));
  using Outcome = SharedQueue::Outcome;
  EXPECT_EQ(outcomes, (std::map<std::string, Outcome>{{"0", Outcome::kAdded},
                                                      {"1", Outcome::kAdded},
                                                      {"2", Outcome::kAway},
                                                      {"3", Outcome::kAdded}}));
}

TEST_F(SharedQueueTest, EndsThatAreToldTogetherAreHeardOfEach) {
  queue_.await_end("1");
  queue_.await_end("2");
  queue_.await_end("3");
  EXPECT_TRUE(until([this] {
    redis_.ask("EVAL redis.call('PUBLISH','" + queue_.key() + "c|" + queue_.host() +
               "','over'..string.char(32)..'1'..string.char(32)..'2'..string.char(32)..'3') 0");
    return over_.size() == 3;
  }));
  EXPECT_EQ(over_, (std::vector<std::string>{"1", "2", "3"}));
}

TEST_F(SharedQueueTest, ACancelThatWasNotHeardIsSaidAgain) {
  add("1");
  redis_.ask("CLIENT KILL TYPE normal");
  bool told = false;
  queue_.see_cancelled("1", "cancelled", 0, [&](bool by_us) { told = by_us; });
  EXPECT_EQ(queue_.unsent(), 1U);
  EXPECT_TRUE(until([&] { return told; }));
  EXPECT_EQ(queue_.unsent(), 0U);
  const auto known =
      client_.get<SharedOrder::Known>([&](auto then) { return queue_.look("1", 0, then); });
  EXPECT_EQ(known.how, 'C');
}

}  // namespace
}  // namespace penstock::queue
