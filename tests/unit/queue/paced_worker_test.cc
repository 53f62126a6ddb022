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

}  // namespace
}  // namespace penstock::queue
