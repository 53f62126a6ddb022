// The edge hears of the end of what it charged for, until it says that it has.
#include "promise_fixture.h"

namespace penstock::queue {
namespace {

using wire::FrameType;

class SettlementTest : public PromiseTest {
 protected:
  Peer edge() {
    Peer peer = connect();
    peer.send(0, wire::Hello{.version = 1, .role = 4});
    settle();
    return peer;
  }
  // A job that was charged for, and is done. Its id.
  std::string charged() {
    wire::Submit message = async();
    message.receipt = "what was charged";
    const std::string id = promised(peer_, ++last_, message);
    answer(device_, take(device_), "done");
    settle();
    return id;
  }
  // The numbers of OVER that came.
  static std::vector<uint64_t> overs(Peer& line) {
    std::vector<uint64_t> numbers;
    while (const auto frame = line.next()) {
      if (frame->type == FrameType::kOver) {
        EXPECT_EQ(frame->as<wire::Over>().receipt, "what was charged");
        EXPECT_EQ(frame->as<wire::Over>().completion_tokens, 4U);
        numbers.push_back(frame->id);
      }
    }
    return numbers;
  }
  size_t on_disk() {
    size_t count = 0;
    store_.reset();
    open();
    EXPECT_TRUE(store_->unsettled(10, [&](JobRecord&& job) {
      EXPECT_EQ(job.receipt, "what was charged");
      EXPECT_EQ(job.end.completion_tokens, 4U);
      ++count;
    }));
    return count;
  }

  Peer peer_ = caller();
  Peer device_ = worker(1);
  uint64_t last_ = 0;
};

TEST_F(SettlementTest, AnEdgeThatDiesWithTheEndUnreadLeavesItToTheNext) {
  Peer first = edge();
  const std::string id = charged();
  Peer second = edge();
  first.close();
  settle();
  const auto told = overs(second);
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0], sequence_of(*parse_job_id(id)));
}

TEST_F(SettlementTest, WhatTheEdgeHasSettledIsNotToldAgain) {
  Peer first = edge();
  charged();
  const auto told = overs(first);
  ASSERT_EQ(told.size(), 1U);
  first.send_empty(FrameType::kSettled, told[0]);
  settle();
  Peer second = edge();
  first.close();
  settle();
  EXPECT_TRUE(overs(second).empty());
  EXPECT_EQ(on_disk(), 0U);
}

TEST_F(SettlementTest, WhatIsNotSettledOutlivesPenstockd) {
  Peer first = edge();
  charged();
  EXPECT_EQ(on_disk(), 1U);
}

TEST_F(SettlementTest, OnlyTheEdgesOwnLineSaysWhatIsSettled) {
  peer_.send_empty(FrameType::kSettled, 1);
  turn();
  EXPECT_TRUE(peer_.hung_up());
}

TEST_F(SettlementTest, AJobWhoseQueueIsGoneEndsAsAnyOther) {
  config_.queues.push_back(QueueConfig{"old"});
  apply();
  intake_.check_callback = [](std::string_view) { return Status(Ok{}); };
  wire::Submit message = async();
  message.queue = "old";
  message.receipt = "what was charged";
  message.callback = "https://example.com/told";
  const std::string id = promised(peer_, ++last_, message);
  config_.queues.pop_back();
  store_.reset();
  store_ = *Store::open({.folder = folder_ + "/state"});
  Dispatcher next(connections_, [] { return wall_ns_ / kNsPerMs; });
  next.apply(config_);
  next.use(*store_);
  std::vector<std::string> told;
  next.on_callback_due = [&](const JobId& job, uint64_t) { told.emplace_back(job.view()); };
  ASSERT_TRUE(store_->recover([&](JobRecord&& job) { next.restore(std::move(job)); },
                              [](const std::string&) {}));
  settle();
  EXPECT_EQ(next.jobs(), 0U);
  EXPECT_EQ(told, std::vector<std::string>{id});
  EXPECT_EQ(next.edges().pending(), 1U);
  EXPECT_EQ(next.metrics().total(Metrics::Event::kDead), 1U);
  EXPECT_EQ(store_->figures().dead, 1U);
}

TEST_F(SettlementTest, NothingIsPromisedIntoAQueueThatIsGone) {
  config_.queues.push_back(QueueConfig{"old"});
  apply();
  config_.queues.pop_back();
  apply();
  wire::Submit message = async();
  message.queue = "old";
  submit(peer_, ++last_, message);
  EXPECT_EQ(reply(peer_, last_).status, 404U);
}

TEST_F(SettlementTest, AStopTellsThoseWhoseKeyIsStillLookedUp) {
  peer_.send(++last_, keyed(async()));
  turn();
  EXPECT_EQ(dispatcher_.jobs(), 1U);
  dispatcher_.give_up();
  turn();
  EXPECT_EQ(reply(peer_, last_).status, 503U);
  EXPECT_EQ(dispatcher_.jobs(), 0U);
}

}  // namespace
}  // namespace penstock::queue
