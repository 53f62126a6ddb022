// What becomes of jobs whose worker crashes, or is ended.
#include "worker/queue/jobs/suspects.h"

#include <map>
#include <set>

#include "promise_fixture.h"

namespace penstock::queue {
namespace {

class SuspectsTest : public PromiseTest {
 protected:
  // The bodies of the jobs that a worker was given, by number.
  std::map<uint64_t, std::string> given(Peer& device) {
    settle();
    std::map<uint64_t, std::string> jobs;
    while (auto frame = device.next()) {
      if (frame->type == wire::FrameType::kSubmit) {
        jobs[frame->id] = frame->as<wire::Submit>().body;
      }
    }
    return jobs;
  }
  void crash(Peer& device) {
    device.close();
    settle();
  }
  void finish(Peer& device, const std::map<uint64_t, std::string>& jobs) {
    for (const auto& [number, body] : jobs) {
      answer(device, number, "done");
    }
  }
  std::vector<std::string> promise_all(Peer& peer, const std::vector<std::string>& bodies) {
    std::vector<std::string> ids;
    for (const std::string& body : bodies) {
      ids.push_back(promised(peer, ++last_id_, async(body)));
    }
    return ids;
  }
  std::string view(Peer& peer, const std::string& id) { return get_job(peer, ++last_id_, id).body; }

  uint64_t last_id_ = 0;
};

TEST_F(SuspectsTest, ARequestThatAlwaysCrashesIsAloneSoonAndNobodyElseIsCharged) {
  for (size_t poison = 0; poison < 8; ++poison) {
    Peer peer = caller();
    std::vector<std::string> bodies;
    for (size_t i = 0; i < 8; ++i) {
      bodies.push_back(i == poison ? "poison" : "good " + std::to_string(i));
    }
    auto device = std::make_unique<Peer>(worker(8));
    const std::vector<std::string> ids = promise_all(peer, bodies);
    size_t crashes = 0;
    for (int i = 0; i < 40 && dispatcher_.jobs() > 0; ++i) {
      const auto jobs = given(*device);
      const bool dies = std::any_of(jobs.begin(), jobs.end(),
                                    [](const auto& job) { return job.second == "poison"; });
      if (!dies) {
        finish(*device, jobs);
        continue;
      }
      ++crashes;
      crash(*device);
      advance(kNsPerMs);
      device = std::make_unique<Peer>(worker(8));
      settle();
    }
    EXPECT_EQ(crashes, 3U + 3U) << "three to find it among eight, and its three attempts";
    for (size_t i = 0; i < 8; ++i) {
      const std::string seen = view(peer, ids[i]);
      const char* const end = i == poison ? R"("status":"failed")" : R"("status":"completed")";
      EXPECT_NE(seen.find(end), seen.npos) << seen;
      const char* const attempts = i == poison ? R"("attempts":3)" : R"("attempts":0)";
      EXPECT_NE(seen.find(attempts), seen.npos) << seen;
    }
    crash(*device);
  }
}

TEST_F(SuspectsTest, AGroupRunsByItselfAndNewcomersGoToOtherWorkers) {
  Peer peer = caller();
  Peer device = worker(4);
  promise_all(peer, {"a", "b", "c", "d"});
  crash(device);
  Peer next = worker(4);
  const auto first = given(next);
  ASSERT_EQ(first.size(), 2U);
  promise_all(peer, {"new"});
  EXPECT_TRUE(given(next).empty()) << "it would be beside suspects";
  Peer other = worker(1, "other");
  auto there = given(other);
  ASSERT_EQ(there.size(), 1U);
  EXPECT_NE(there.begin()->second, "new") << "it runs nothing, so the other half is its";
  finish(other, there);
  there = given(other);
  ASSERT_EQ(there.size(), 1U);
  EXPECT_NE(there.begin()->second, "new");
  finish(other, there);
  there = given(other);
  ASSERT_EQ(there.size(), 1U);
  EXPECT_EQ(there.begin()->second, "new");
}

TEST_F(SuspectsTest, ABusyWorkerIsEmptiedForThemWhereNoneComesBack) {
  Peer peer = caller();
  Peer device = worker(2);
  promise_all(peer, {"a", "b"});
  Peer busy = worker(2, "busy");
  promise_all(peer, {"long"});
  const auto runs = given(busy);
  ASSERT_EQ(runs.size(), 1U);
  crash(device);
  promise_all(peer, {"new"});
  EXPECT_TRUE(given(busy).empty()) << "else it might never be empty";
  finish(busy, runs);
  const auto alone = given(busy);
  ASSERT_EQ(alone.size(), 1U);
  EXPECT_EQ(alone.begin()->second, "a");
}

TEST_F(SuspectsTest, ASuspectThatIsCancelledOrLateLeavesItsGroup) {
  Peer peer = caller();
  Peer device = worker(4);
  const auto ids = promise_all(peer, {"a", "b", "c", "d"});
  crash(device);
  EXPECT_NE(view(peer, ids[0]).find(R"("status":"queued")"), std::string::npos);
  wire::Ask cancel = get("/" + ids[0]);
  cancel.method = "DELETE";
  EXPECT_EQ(ask(peer, ++last_id_, cancel).status, 200U);
  Peer next = worker(4);
  const auto jobs = given(next);
  ASSERT_EQ(jobs.size(), 1U);
  EXPECT_EQ(jobs.begin()->second, "b");
  advance(601 * kNsPerSec);
  settle();
  EXPECT_NE(view(peer, ids[2]).find(R"("status":"expired")"), std::string::npos);
  EXPECT_EQ(dispatcher_.jobs(), 0U);
}

TEST_F(SuspectsTest, WhatWasNotSentYetIsNoSuspect) {
  Suspects suspects;
  EXPECT_TRUE(suspects.empty());
  Job one;
  Scheduler::Lane lane;
  suspects.add(lane, {&one});
  EXPECT_TRUE(suspects.waiting(lane));
  EXPECT_EQ(suspects.take(lane, one.more->suspect + 1), nullptr) << "of another group";
  EXPECT_EQ(suspects.take(lane, 0), &one);
  EXPECT_NE(one.more->suspect, 0U) << "it stays one while it runs";
  EXPECT_TRUE(suspects.empty());
}

TEST_F(SuspectsTest, SuspectsOfAModelThatNobodyServesAnyMoreStandInLineAgain) {
  Peer peer = caller();
  Peer device = worker(2);
  promise_all(peer, {"a", "b"});
  crash(device);
  config_.workers[0].model = config_.workers[0].model_name = "other";
  apply();
  config_.workers[0].model = config_.workers[0].model_name = "demo";
  apply();
  Peer next = worker(2);
  EXPECT_EQ(given(next).size(), 2U);
}

TEST_F(SuspectsTest, AWorkerThatWasToldToEndChargesNobody) {
  Peer peer = caller();
  const auto ids = promise_all(peer, {"long"});
  ordered_ = true;
  for (int reload = 0; reload < 3; ++reload) {
    Peer device = worker(1);
    ASSERT_EQ(given(device).size(), 1U);
    crash(device);
  }
  EXPECT_NE(view(peer, ids[0]).find(R"("status":"queued")"), std::string::npos);
  EXPECT_NE(view(peer, ids[0]).find(R"("attempts":0)"), std::string::npos);
}

TEST_F(SuspectsTest, AnAnswerThatItsCallerHasSeenTheBeginningOfIsCutShortAllTheSame) {
  ordered_ = true;
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1, post());
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  turn();
  crash(device);
  EXPECT_EQ(reply(peer, 1).code, "engine_failed");
  EXPECT_EQ(dispatcher_.jobs(), 0U);
}

}  // namespace
}  // namespace penstock::queue
