// What a worker says whose jobs run elsewhere: its slots close and open, jobs come back, answers
// have headers, or the status of an error.
#include "promise_fixture.h"

namespace penstock::queue {
namespace {

using wire::FrameType;

class EngineElsewhereTest : public PromiseTest {
 protected:
  void say_slots(Peer& device, const wire::Slots& slots) {
    device.send(0, slots);
    settle();
  }
  void give_back(Peer& device, uint64_t number) {
    device.send(
        number,
        wire::Failed{
            .status = 503, .code = "busy", .message = "the backend has no room", .returned = 1});
    device.send(0, wire::Take{1});
    settle();
  }
  std::string view(Peer& peer, const std::string& id) { return get_job(peer, ++last_id_, id).body; }

  uint64_t last_id_ = 100;
};

TEST_F(EngineElsewhereTest, AJobThatIsReturnedKeepsItsPlaceAndItsAttempts) {
  Peer device = worker(1);
  Peer peer = caller();
  const std::string first = promised(peer, 1, async("first"));
  const std::string second = promised(peer, 2, async("second"));
  const uint64_t number = take(device);
  say_slots(device, {.slots = 0, .retry_ms = 1000, .message = "429 of the backend"});
  give_back(device, number);
  EXPECT_FALSE(device.next()) << "it rests";
  EXPECT_NE(view(peer, first).find("\"position\":1,"), std::string::npos) << view(peer, first);
  EXPECT_NE(view(peer, second).find("\"position\":2,"), std::string::npos);
  EXPECT_NE(view(peer, first).find("\"attempts\":0,"), std::string::npos);
  say_slots(device, {.slots = 1});
  const auto again = device.next();
  ASSERT_TRUE(again && again->type == FrameType::kSubmit);
  EXPECT_EQ(again->as<wire::Submit>().body, "first");
}

TEST_F(EngineElsewhereTest, HoweverOftenItIsReturnedNoAttemptIsBurned) {
  Peer device = worker(1);
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  for (int i = 0; i < 10; ++i) {
    const uint64_t number = take(device);
    say_slots(device, {});
    give_back(device, number);
    say_slots(device, {.slots = 1});
  }
  answer(device, take(device), "at last");
  EXPECT_EQ(get_job(peer, ++last_id_, id, "/result").body, "at last");
}

TEST_F(EngineElsewhereTest, LoweredSlotsAreNeverPassed) {
  Peer device = worker(2);
  Peer peer = caller();
  say_slots(device, {.slots = 1, .message = "the backend queues"});
  promised(peer, 1, async("a"));
  promised(peer, 2, async("b"));
  const uint64_t number = take(device);
  EXPECT_FALSE(device.next());
  answer(device, number, "done");
  take(device);
  EXPECT_FALSE(device.next());
  say_slots(device, {.slots = 2});
  promised(peer, 3, async("c"));
  take(device);
}

TEST_F(EngineElsewhereTest, ABackendThatIsOutIsAsAWorkerThatIsOut) {
  Peer device = worker(1);
  Peer peer = caller();
  say_slots(device, {.slots = 0, .out = 1, .retry_ms = 5000, .message = "connection refused"});
  submit(peer, 1, post());
  EXPECT_EQ(reply(peer, 1).status, 0U) << "worth waiting for at first";
  advance(config_.limits.worker_grace_ns + kNsPerSec);
  EXPECT_EQ(reply(peer, 1).status, 503U);
  Peer late = caller();
  submit(late, 2, post());
  const Reply refused = reply(late, 2);
  EXPECT_EQ(refused.status, 503U);
  EXPECT_EQ(refused.code, "busy");
  EXPECT_FALSE(device.next());
  say_slots(device, {.slots = 1});
  submit(peer, 3, post());
  take(device);
}

TEST_F(EngineElsewhereTest, OneThatIsOutFromTheStartIsWaitedForDuringTheGrace) {
  Peer device = connect_worker();
  device.send(0, wire::Hello{.version = 1, .role = 2, .name = "demo", .model = "demo", .slots = 2});
  device.send(0, wire::Slots{.slots = 0, .out = 1, .message = "connection refused"});
  device.send(0, wire::Take{2});
  settle();
  Peer peer = caller();
  submit(peer, 1, post());
  EXPECT_EQ(reply(peer, 1).status, 0U) << "its program may be loading";
  advance(config_.limits.worker_grace_ns);
  Peer late = caller();
  submit(late, 2, post());
  EXPECT_EQ(reply(late, 2).status, 503U);
}

TEST_F(EngineElsewhereTest, OneWhoseProgramFailedAtItsFirstStartIsNotWaitedFor) {
  Peer device = connect_worker();
  device.send(0, wire::Hello{.version = 1, .role = 2, .name = "demo", .model = "demo", .slots = 2});
  device.send(0, wire::Slots{.slots = 0, .out = 1, .message = "its program is being started"});
  device.send(0, wire::Take{2});
  settle();
  say_slots(device, {.slots = 0, .out = 1, .retry_ms = 30'000, .message = "it exited"});
  Peer peer = caller();
  submit(peer, 1, post());
  EXPECT_EQ(reply(peer, 1).status, 503U);
}

TEST_F(EngineElsewhereTest, MoreSlotsThanItHasIsABrokenRule) {
  Peer device = worker(1);
  say_slots(device, {.slots = 3});
  EXPECT_TRUE(device.hung_up());
}

TEST_F(EngineElsewhereTest, HeadersOfAnAnswerAreKeptWithIt) {
  Peer device = worker(1);
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200,
                                 .content_type = "application/octet-stream",
                                 .headers = "inference-header-content-length: 134\n"});
  say(device, number, "tensors");
  device.send(number, wire::Done{1, 2, 3});
  settle();
  const Reply result = get_job(peer, ++last_id_, id, "/result");
  EXPECT_EQ(result.body, "tensors");
  EXPECT_NE(result.headers.find("inference-header-content-length: 134\n"), std::string::npos);
}

TEST_F(EngineElsewhereTest, HeadersThatAreTheServersOwnAreABrokenRule) {
  Peer device = worker(1);
  Peer peer = caller();
  promised(peer, 1);
  device.send(take(device), wire::Head{.status = 200, .headers = "Content-Length: 5\n"});
  settle();
  EXPECT_TRUE(device.hung_up());
}

// A promised job fails with what the engine said, word for word; who waited has it as an answer.
TEST_F(EngineElsewhereTest, AnAnswerWithTheStatusOfAnErrorIsAFailedJobs) {
  Peer device = worker(2);
  Peer peer = caller();
  const std::string id = promised(peer, 1, async("a"));
  submit(peer, 2, post("b"));
  for (int i = 0; i < 2; ++i) {
    const uint64_t number = take(device);
    device.send(number, wire::Head{.status = 404, .content_type = "application/json"});
    say(device, number, R"({"error":"no such model"})");
    device.send(number, wire::Done{});
    settle();
  }
  const Reply waited = reply(peer, 2);
  EXPECT_EQ(waited.status, 404U);
  EXPECT_EQ(waited.body, R"({"error":"no such model"})");
  const std::string job = view(peer, id);
  EXPECT_NE(job.find("\"status\":\"failed\""), std::string::npos) << job;
  EXPECT_NE(job.find("\"code\":\"not_found\""), std::string::npos) << job;
  EXPECT_NE(job.find("404"), std::string::npos) << job;
  const Reply result = get_job(peer, ++last_id_, id, "/result");
  EXPECT_EQ(result.status, 404U);
  EXPECT_EQ(result.body, R"({"error":"no such model"})");
  EXPECT_EQ(dispatcher_.metrics().total(Metrics::Event::kFailed), 2U);
  EXPECT_EQ(dispatcher_.metrics().total(Metrics::Event::kCompleted), 0U);
}

TEST_F(EngineElsewhereTest, WhatIsAGuessIsToldAsOneAlsoAfterARestart) {
  Peer device = worker(1);
  Peer peer = caller();
  wire::Submit message = async();
  message.receipt = "what was charged";
  promised(peer, 1, message);
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  device.send(number, wire::Done{3, 4, 5, 1});
  settle();
  store_.reset();
  open();
  int seen = 0;
  EXPECT_TRUE(store_->unsettled(10, [&](JobRecord&& job) {
    EXPECT_TRUE(job.end.estimated);
    ++seen;
  }));
  EXPECT_EQ(seen, 1);
}

TEST_F(EngineElsewhereTest, TheLastPreviewIsShownWhileTheJobRuns) {
  Peer device = worker(1);
  Peer peer = caller();
  const std::string id = promised(peer, 1);
  const uint64_t number = take(device);
  EXPECT_EQ(get_job(peer, ++last_id_, id, "/preview").status, 404U);
  Peer watcher = caller();
  watcher.send(1, get("/" + id + "/events"));
  settle();
  device.send(number, wire::Preview{"image/png", "first"});
  device.send(number, wire::Preview{"image/png", "second"});
  settle();
  const Reply preview = get_job(peer, ++last_id_, id, "/preview");
  EXPECT_EQ(preview.status, 200U);
  EXPECT_EQ(preview.body, "second");
  const std::string events = reply(watcher, 1).body;
  EXPECT_NE(events.find("event: preview"), std::string::npos) << events;
  EXPECT_NE(events.find("/jobs/" + id + "/preview?number=2"), std::string::npos) << events;
  Peer late = caller();
  late.send(1, get("/" + id + "/events"));
  settle();
  EXPECT_NE(reply(late, 1).body.find("preview?number=2"), std::string::npos)
      << "it is not repeated";
  answer(device, number, "done");
  EXPECT_EQ(get_job(peer, ++last_id_, id, "/preview").status, 404U);
}

TEST_F(EngineElsewhereTest, APreviewThatIsNoPictureIsABrokenRule) {
  Peer device = worker(1);
  Peer peer = caller();
  promised(peer, 1);
  device.send(take(device), wire::Preview{"text/html", "<script>"});
  settle();
  EXPECT_TRUE(device.hung_up());
}

}  // namespace
}  // namespace penstock::queue
