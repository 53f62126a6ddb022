// Jobs of a worker whose backend has limits: they start as fast as those allow, and know it.
#include "promise_fixture.h"

namespace penstock::queue {
namespace {

class PacedWorkerTest : public PromiseTest {
 protected:
  void set_pace(const std::vector<PaceLimit>& limits, uint32_t at_once = 0) {
    config_.paces = {{.key = "paid", .limits = limits, .at_once = at_once}};
    for (WorkerConfig& worker : config_.workers) {
      worker.limit_key = "paid";
    }
    apply();
  }
  Peer paced_worker(uint64_t credit) {
    pace_ = dispatcher_.paces().of(config_.workers[0]);
    Peer peer = worker(credit);
    return peer;
  }
  size_t started(Peer& device) {
    settle();
    size_t count = 0;
    while (auto frame = device.next()) {
      if (frame->type == wire::FrameType::kSubmit) {
        last_ = frame->id;
        ++count;
      }
    }
    return count;
  }
  std::string view(Peer& peer, const std::string& id) { return get_job(peer, ++asked_, id).body; }

  uint64_t last_ = 0;
  uint64_t asked_ = 100;
};

TEST_F(PacedWorkerTest, NoMoreAreStartedThanTheBackendAllowsAndTheWaitSaysSo) {
  set_pace({{.amount = 2, .length_ns = 60 * kNsPerSec}});
  Peer device = paced_worker(2);
  Peer peer = caller();
  std::vector<std::string> ids;
  for (uint64_t i = 1; i <= 5; ++i) {
    ids.push_back(promised(peer, i));
  }
  EXPECT_EQ(started(device), 2U);
  answer(device, last_ - 1, "a");
  answer(device, last_, "b");
  EXPECT_EQ(started(device), 0U) << "there are slots, and no leave";
  EXPECT_NE(view(peer, ids[2]).find("\"eta_seconds\":61,"), std::string::npos)
      << view(peer, ids[2]);
  EXPECT_NE(view(peer, ids[4]).find("\"eta_seconds\":121,"), std::string::npos)
      << view(peer, ids[4]);
  EXPECT_LE(dispatcher_.next_event(), now_ns_ + 61 * kNsPerSec);
  advance(59 * kNsPerSec);
  EXPECT_EQ(started(device), 0U);
  advance(2 * kNsPerSec);
  EXPECT_EQ(started(device), 2U);
}

TEST_F(PacedWorkerTest, WhatWasReturnedStillCountsAndWhatWasNeverSentDoesNot) {
  set_pace({{.amount = 1, .length_ns = 60 * kNsPerSec}});
  Peer device = paced_worker(1);
  Peer peer = caller();
  promised(peer, 1);
  ASSERT_EQ(started(device), 1U);
  device.send(last_, wire::Failed{.status = 503, .code = "busy", .returned = 1});
  device.send(0, wire::Take{1});
  EXPECT_EQ(started(device), 0U);
  advance(61 * kNsPerSec);
  EXPECT_EQ(started(device), 1U);
}

TEST_F(PacedWorkerTest, AtOnceCountsOverAllWorkersOfTheKey) {
  WorkerConfig other = config_.workers[0];
  other.name = "other";
  config_.workers.push_back(other);
  set_pace({}, 3);
  Peer first = paced_worker(2);
  Peer second = worker(2, "other");
  Peer peer = caller();
  for (uint64_t i = 1; i <= 4; ++i) {
    promised(peer, i);
  }
  const size_t begun = started(second);
  const uint64_t of_second = last_;
  EXPECT_EQ(begun + started(first), 3U);
  answer(second, of_second, "done");
  advance(1);
  EXPECT_EQ(started(first) + started(second), 1U) << "whoever has room";
}

TEST_F(PacedWorkerTest, ModelsThatShareAPaceTakeTurnsAndTheirWaitsSaySo) {
  WorkerConfig other = config_.workers[0];
  other.name = other.model_name = "other";
  config_.workers.push_back(other);
  set_pace({{.amount = 1, .length_ns = 10 * kNsPerSec}});
  Peer demo = paced_worker(10);
  Peer beside = worker(10, "other", "other");
  Peer peer = caller();
  std::vector<std::string> ids;
  uint64_t number = 0;
  const auto ask = [&](const char* model, int64_t priority = 0) {
    wire::Submit message = async();
    message.model = model;
    message.priority = priority;
    ids.push_back(promised(peer, ++number, message));
  };
  ask("demo");
  for (int i = 0; i < 4; ++i) {
    ask("demo");
  }
  ask("other");
  ask("other");
  ask("other", 5);
  EXPECT_EQ(started(demo), 1U);
  answer(demo, last_, "a");  // so that something is known of how long they take
  const auto eta = [&](size_t job) {
    const std::string text = view(peer, ids[job]);
    const size_t at = text.find("\"eta_seconds\":");
    EXPECT_NE(at, text.npos) << text;
    return std::atoi(text.c_str() + at + 14);
  };
  const int round = 10;  // and what the other side may be late
  EXPECT_NEAR(eta(7), 1 * round, 2) << "of a higher class";
  EXPECT_NEAR(eta(1), 2 * round, 2) << "now it is the first model's turn";
  EXPECT_NEAR(eta(5), 3 * round, 2);
  EXPECT_NEAR(eta(2), 4 * round, 3);
  EXPECT_NEAR(eta(6), 5 * round, 3);
  EXPECT_NEAR(eta(3), 6 * round, 3);
  EXPECT_NEAR(eta(4), 7 * round, 3) << "nobody else is left";
  std::string order;
  for (int i = 0; i < 7; ++i) {
    advance(10 * kNsPerSec + Pace::late_ns(10 * kNsPerSec));
    const size_t of_demo = started(demo);
    const size_t of_other = started(beside);
    EXPECT_EQ(of_demo + of_other, 1U);
    order += of_demo > 0 ? 'd' : 'o';
  }
  EXPECT_EQ(order, "odododd");
}

}  // namespace
}  // namespace penstock::queue
