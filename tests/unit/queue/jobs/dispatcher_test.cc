#include "worker/queue/jobs/dispatcher.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "session_fixture.h"

namespace penstock::queue {
namespace {

using wire::FrameType;

class DispatcherTest : public SessionTest {
 protected:
  void submit(Peer& peer, uint64_t id, const wire::Submit& message = post()) {
    peer.send(id, message);
    turn();
  }
  // Reads frames until one of this type.
  static Peer::Received expect(Peer& peer, FrameType type) {
    while (auto received = peer.next()) {
      if (received->type == type) {
        return *std::move(received);
      }
    }
    ADD_FAILURE() << "no frame of type " << static_cast<int>(type);
    return {};
  }
  // The caller does not read them, and the job is over.
  void send_until_cancelled(Peer& device, std::string_view frames, int most) {
    std::optional<Peer::Received> cancel;
    for (int i = 0; i < most && !cancel; ++i) {
      device.send_bytes(frames);
      turn();
      cancel = device.next();
    }
    ASSERT_TRUE(cancel);
    EXPECT_EQ(cancel->type, FrameType::kCancel);
    EXPECT_EQ(dispatcher_.jobs(), 0U);
  }
  static wire::Failed failure(const Peer::Received& received) {
    return received.as<wire::Failed>();
  }
};

TEST_F(DispatcherTest, AnAnswerGoesThroughUnchangedUnderTheCallersId) {
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 42);
  const auto job = device.next();
  ASSERT_TRUE(job);
  device.send(job->id, wire::Head{200, "text/plain", 6});
  std::string chunk;
  wire::append_chunk(chunk, job->id, "hello");
  device.send_bytes(chunk);
  device.send(job->id, wire::Done{1, uint64_t{1} << 40, UINT64_MAX});
  turn();
  EXPECT_EQ(peer.next()->as<wire::Accepted>().position, 0U);
  const auto head = peer.next();
  EXPECT_EQ(head->id, 42U);
  EXPECT_EQ(head->as<wire::Head>().content_type, "text/plain");
  EXPECT_EQ(peer.next()->payload, "hello");
  const auto done = peer.next();
  EXPECT_EQ(done->id, 42U);
  EXPECT_EQ(done->as<wire::Done>().prompt_tokens, 1U);
  EXPECT_EQ(done->as<wire::Done>().completion_tokens, uint64_t{1} << 40);
  EXPECT_EQ(done->as<wire::Done>().device_ns, UINT64_MAX);
  EXPECT_EQ(dispatcher_.jobs(), 0U);
  EXPECT_EQ(dispatcher_.frame_bytes(), 0);
}

TEST_F(DispatcherTest, AStreamedAnswerIsTimedToItsFirstTokenAndThenByToken) {
  Peer device = worker(2);
  Peer peer = caller();
  const int64_t arrived_ns = now_ns_;
  submit(peer, 1);
  submit(peer, 2);
  const uint64_t streamed = device.next()->id;
  const uint64_t whole = device.next()->id;
  const int64_t head_ns = arrived_ns + 200 * kNsPerMs;
  advance(head_ns - now_ns_);
  device.send(streamed, wire::Head{200, "text/event-stream", 0});
  turn();
  advance(head_ns + 900 * kNsPerMs - now_ns_);
  device.send(streamed, wire::Done{.prompt_tokens = 3, .completion_tokens = 10});
  device.send(whole, wire::Head{200, "text/plain", 1});
  device.send(whole, wire::Done{.prompt_tokens = 3, .completion_tokens = 10});
  turn();
  const wire::ServingMetrics& serving = dispatcher_.metrics().serving("default", "demo");
  EXPECT_DOUBLE_EQ(serving.first_token.sum, 0.2) << "of the streamed one only";
  EXPECT_EQ(serving.first_token.count[8], 1U) << "up to 0.25 s";
  EXPECT_DOUBLE_EQ(serving.per_token.sum, 0.1) << "900 ms for nine tokens";
  EXPECT_EQ(serving.per_token.count[7], 1U);
}

TEST_F(DispatcherTest, ModelsWithoutAPlaceAreCountedTogether) {
  Metrics metrics;
  wire::ServingMetrics& first = metrics.serving("default", "model 0");
  for (size_t i = 1; i < 2 * wire::kMaxModels; ++i) {
    metrics.serving("default", "model " + std::to_string(i));
  }
  EXPECT_EQ(&metrics.serving("default", "model 0"), &first);
  EXPECT_NE(&metrics.serving("video", "model 0"), &first);
  EXPECT_STREQ(metrics.serving("default", "model 62").model, "model 62");
  EXPECT_STREQ(metrics.serving("default", "model 63").model, "other");
  EXPECT_EQ(&metrics.serving("default", "model 99"), &metrics.page().serving[63]);
}

TEST_F(DispatcherTest, AQueueIsCountedInThePlaceOfOneThatIsGoneWhereThereIsNoOther) {
  Metrics metrics;
  const auto name = [](size_t i) { return "queue" + std::to_string(i); };
  for (size_t i = 0; i < wire::kMaxQueues; ++i) {
    Metrics::count(metrics.of(name(i)), Metrics::Event::kAccepted);
  }
  const uint64_t all = metrics.total(Metrics::Event::kAccepted);
  metrics.retire(name(3));
  wire::QueueMetrics& fresh = metrics.of("fresh");
  EXPECT_STREQ(fresh.name, "fresh");
  EXPECT_EQ(&metrics.of("fresh"), &fresh);
  EXPECT_EQ(fresh.events[static_cast<size_t>(Metrics::Event::kAccepted)], 0U);
  EXPECT_EQ(metrics.total(Metrics::Event::kAccepted), all) << "sums go on";
}

TEST_F(DispatcherTest, WhereNoWaitIsKnownWhoWouldNotWaitLongIsRefused) {
  const Peer device = worker(1);
  dispatcher_.pause(*dispatcher_.scheduler().find_queue("default"));
  Peer peer = caller();
  wire::Submit message = post();
  message.max_wait_ms = 5000;
  submit(peer, 1, message);
  const auto frame = peer.next();
  const auto told = frame->as<wire::Failed>();
  EXPECT_EQ(told.status, 503U);
  EXPECT_EQ(told.retry_after_s, 60U);
  submit(peer, 2);
  EXPECT_EQ(peer.next()->as<wire::Accepted>().position, 1U) << "who waits however long it takes";
}

TEST_F(DispatcherTest, OfAModelThatCouldNotBeLoadedCallersAreToldSo) {
  Peer peer = caller();
  wire::Submit message = post();
  message.model = "demo";
  for (const auto& [next_s, retry_s] : {std::pair{30, 30U}, {1, 10U}}) {
    dispatcher_.served().failed("demo", now_ns_ + next_s * kNsPerSec);
    submit(peer, 1, message);
    const auto said = peer.next();
    const auto told = said->as<wire::Failed>();
    EXPECT_EQ(told.status, 503U);
    EXPECT_EQ(told.retry_after_s, retry_s);
    EXPECT_EQ(told.message.find("Model 'demo' of queue default could not be loaded."), 0U)
        << told.message;
  }
  const Peer device = worker(1);
  submit(peer, 2, message);
  EXPECT_EQ(peer.next()->type, FrameType::kAccepted) << "now it was";
}

TEST_F(DispatcherTest, TheWorkerIsNotToldWhoAsked) {
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  const auto job = device.next();
  EXPECT_EQ(job->payload.find("secret"), std::string::npos);
  const auto seen = job->as<wire::Submit>();
  EXPECT_EQ(seen.owner, "");
  EXPECT_EQ(seen.body, "{}");
  EXPECT_EQ(seen.path, "/v1/completions");
}

TEST_F(DispatcherTest, TheWorkerIsToldHowLongAJobMayTake) {
  Peer device = worker(1);
  Peer peer = caller();
  wire::Submit message = post();
  message.deadline_ms = 5;  // a caller has no say in this
  submit(peer, 1, message);
  submit(peer, 2, message);
  const auto deadline_ms = static_cast<uint64_t>(config_.queues[0].deadline_ns / kNsPerMs);
  EXPECT_EQ(device.next()->as<wire::Submit>().deadline_ms, deadline_ms);
  advance(100 * kNsPerSec);
  device.send(0, wire::Take{1});
  turn();
  const auto left_ms = expect(device, FrameType::kSubmit).as<wire::Submit>().deadline_ms;
  EXPECT_NEAR(static_cast<double>(left_ms), static_cast<double>(deadline_ms) - 100'000, 1000);
}

TEST_F(DispatcherTest, TheWorkerIsGivenTheModelAndTheOverrideAsTheyCame) {
  Peer device = worker(1);
  Peer peer = caller();
  wire::Submit degraded = post(R"({"model":"large","prompt":"x"})");
  degraded.model = "demo";
  degraded.override = R"( {"max_tokens": 64, "no_field_of_ours": [1]} )";
  submit(peer, 1, degraded);
  const auto job = device.next();
  ASSERT_TRUE(job);
  const auto seen = job->as<wire::Submit>();
  EXPECT_EQ(seen.model, "demo");
  EXPECT_EQ(seen.override, degraded.override);
  EXPECT_EQ(seen.body, degraded.body);
}

TEST_F(DispatcherTest, JobsWaitForCreditAndKnowTheirPosition) {
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  submit(peer, 2);
  submit(peer, 3);
  EXPECT_EQ(peer.next()->as<wire::Accepted>().position, 0U);
  EXPECT_EQ(peer.next()->as<wire::Accepted>().position, 1U);
  EXPECT_EQ(peer.next()->as<wire::Accepted>().position, 2U);
  const auto first = device.next();
  EXPECT_FALSE(device.next());
  device.send(first->id, wire::Failed{.status = 400, .code = "invalid_request"});
  device.send(0, wire::Take{1});
  turn();
  EXPECT_EQ(expect(peer, FrameType::kFailed).id, 1U);
  EXPECT_TRUE(device.next());
  EXPECT_FALSE(device.next());
}

TEST_F(DispatcherTest, ACallerThatClosesFreesItsPlacesAndItsSlots) {
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  submit(peer, 2);
  const auto running = device.next();
  peer.close();
  turn();
  const auto cancel = device.next();
  EXPECT_EQ(cancel->type, FrameType::kCancel);
  EXPECT_EQ(cancel->id, running->id);
  EXPECT_EQ(dispatcher_.jobs(), 0U);
  // What the worker said before it heard of that is dropped, and it stays connected.
  device.send(running->id, wire::Head{200, "text/plain"});
  turn();
  EXPECT_FALSE(device.hung_up());
}

TEST_F(DispatcherTest, ACancelFreesOneJobOnly) {
  Peer device = worker(2);
  Peer peer = caller();
  submit(peer, 1);
  submit(peer, 2);
  peer.send_empty(FrameType::kCancel, 1);
  turn();
  EXPECT_EQ(dispatcher_.jobs(), 1U);
  EXPECT_EQ(expect(device, FrameType::kCancel).id, 1U);
}

TEST_F(DispatcherTest, JobsOfALostWorkerAreStartedAgainInTheirOldOrder) {
  ordered_ = true;
  Peer device = worker(2);
  Peer peer = caller();
  submit(peer, 1, post("first"));
  submit(peer, 2, post("second"));
  submit(peer, 3, post("third"));
  device.close();
  turn();
  EXPECT_EQ(dispatcher_.jobs(), 3U);
  Peer next = worker(3);
  for (const char* body : {"first", "second", "third"}) {
    EXPECT_EQ(next.next()->as<wire::Submit>().body, body);
  }
  EXPECT_EQ(dispatcher_.metrics().total(Metrics::Event::kRetried), 2U);
}

TEST_F(DispatcherTest, JobsOfALostWorkerGoToAnotherThatHasCredit) {
  ordered_ = true;
  Peer device = worker(3);
  Peer idle = worker(1, "idle");
  Peer peer = caller();
  submit(peer, 1, post("first"));
  submit(peer, 2, post("second"));
  device.close();
  turn();
  EXPECT_EQ(idle.next()->as<wire::Submit>().body, "first");
  EXPECT_FALSE(idle.next());
  idle.send(0, wire::Take{1});
  turn();
  EXPECT_EQ(idle.next()->as<wire::Submit>().body, "second");
}

TEST_F(DispatcherTest, AJobGoesToTheWorkerWithTheMostCredit) {
  Peer busy = worker(1);
  Peer free = worker(2, "free");
  Peer peer = caller();
  submit(peer, 1);
  EXPECT_TRUE(free.next());
  EXPECT_FALSE(busy.next());
}

TEST_F(DispatcherTest, WorkersOnOneDeviceShareItsSlots) {
  DeviceShare& share = share_device({.slots = 3});
  Peer one = worker(2);
  Peer two = worker(2);
  Peer peer = caller();
  for (uint64_t id = 1; id <= 6; ++id) {
    submit(peer, id);
  }
  const auto first = one.next();
  ASSERT_TRUE(first && two.next());
  const bool one_has_two = one.next().has_value();
  EXPECT_NE(one_has_two, two.next().has_value()) << "three in all";
  one.send(first->id, wire::Head{200, "text/plain"});
  one.send(first->id, wire::Done{});
  one.send(0, wire::Take{1});
  turn();
  EXPECT_TRUE(one.next().has_value() || two.next().has_value());
  EXPECT_EQ(share.budget.busy, 3U);
}

TEST_F(DispatcherTest, ACancelledJobHasItsSlotUntilTheWorkerGivesItBack) {
  DeviceShare& share = share_device({.slots = 1});
  Peer one = worker(1);
  Peer two = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  submit(peer, 2);
  Peer& busy = one.next().has_value() ? one : two;
  Peer& idle = &busy == &one ? two : one;
  peer.send_empty(FrameType::kCancel, 1);
  turn();
  EXPECT_FALSE(idle.next()) << "the device still works on it";
  EXPECT_EQ(busy.next()->type, FrameType::kCancel);
  busy.send(0, wire::Take{1});
  turn();
  EXPECT_NE(idle.next().has_value(), busy.next().has_value());
  EXPECT_EQ(share.budget.busy, 1U);
}

TEST_F(DispatcherTest, MemoryIsGrantedOverAllWorkersOfADevice) {
  DeviceShare& share = share_device({.slots = 4, .memory_bytes = 100});
  Peer one = worker(1);
  Peer two = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  submit(peer, 2);
  const uint64_t first = one.next()->id;
  const uint64_t second = two.next()->id;
  one.send(first, wire::Claim{70});
  turn();
  EXPECT_EQ(one.next()->as<wire::Grant>().memory_bytes, 70U);
  two.send(second, wire::Claim{40});
  turn();
  EXPECT_FALSE(two.next());
  one.send(first, wire::Head{200, "text/plain"});
  one.send(first, wire::Done{});
  one.send(0, wire::Take{1, 70});
  turn();
  EXPECT_EQ(two.next()->as<wire::Grant>().memory_bytes, 40U);
  two.close();
  turn();
  EXPECT_EQ(share.budget.held_bytes, 0);
  one.send(0, wire::Claim{0});
  turn();
  EXPECT_EQ(last_words_,
            "it broke the protocol: CLAIM of no bytes, or of more than any device has");
}

TEST_F(DispatcherTest, AnAnswerThatHasBegunIsCutShortWhenItsWorkerIsLost) {
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  device.send(device.next()->id, wire::Head{200, "text/plain"});
  turn();
  device.close();
  turn();
  const auto received = expect(peer, FrameType::kFailed);
  EXPECT_EQ(failure(received).status, 502U);
  EXPECT_EQ(failure(received).code, "engine_failed");
  EXPECT_EQ(failure(received).message, "The answer was cut short. The worker stopped.");
}

TEST_F(DispatcherTest, AfterAllAttemptsTheCallerIsTold) {
  Peer peer = caller();
  Peer device = worker(1);
  submit(peer, 1);
  device.close();
  turn();
  for (int attempt = 2; attempt <= 3; ++attempt) {
    advance(2 * kNsPerSec);
    Peer next = worker(1);
    ASSERT_TRUE(next.next());
    next.close();
    turn();
  }
  const auto received = expect(peer, FrameType::kFailed);
  EXPECT_EQ(failure(received).message, "The worker failed all 3 attempts. The worker stopped.");
}

TEST_F(DispatcherTest, ARetryableFailureIsTriedAgainAfterTheBackOffAndAnyOtherIsPassedOn) {
  Peer peer = caller();
  Peer device = worker(2);
  submit(peer, 1);
  device.send(device.next()->id, wire::Failed{.status = 502, .message = "odd", .retryable = 1});
  turn();
  EXPECT_FALSE(device.next());
  advance(kNsPerSec);
  const auto again = device.next();
  ASSERT_TRUE(again);
  device.send(again->id, wire::Failed{.status = 400, .code = "invalid_request", .message = "no"});
  turn();
  EXPECT_EQ(failure(expect(peer, FrameType::kFailed)).message, "no");
}

TEST_F(DispatcherTest, AModelNobodyServesIsNotFound) {
  Peer peer = caller();
  wire::Submit message = post();
  message.model = "gpt-9";
  submit(peer, 1, message);
  const auto received = peer.next();
  EXPECT_EQ(failure(*received).status, 404U);
  EXPECT_EQ(failure(*received).code, "not_found");
  EXPECT_EQ(failure(*received).param, "model");
  EXPECT_EQ(failure(*received).message,
            "No worker of queue default serves model 'gpt-9'. Models served: demo.");
}

TEST_F(DispatcherTest, AModelMayBeNamedAsItIsWrittenInTheFile) {
  Peer device = worker(1);
  Peer peer = caller();
  wire::Submit message = post();
  message.model = "models/demo";
  submit(peer, 1, message);
  EXPECT_EQ(peer.next()->type, FrameType::kAccepted);
}

TEST_F(DispatcherTest, AQueueThatIsNotThereIsNotFound) {
  Peer peer = caller();
  wire::Submit message = post();
  message.queue = "vidoe";
  submit(peer, 1, message);
  EXPECT_EQ(failure(*peer.next()).message, "There is no queue 'vidoe'.");
}

TEST_F(DispatcherTest, ModelsAreListedWithoutAWorker) {
  Peer peer = caller();
  submit(peer, 1, {.method = "GET", .path = "/v1/models"});
  EXPECT_EQ(peer.next()->as<wire::Head>().status, 200U);
  EXPECT_EQ(peer.next()->payload,
            "{\"object\":\"list\",\"data\":[{\"id\":\"demo\",\"object\":\"model\",\"created\":"
            "1700000000,\"owned_by\":\"penstock\",\"eta_seconds\":null,\"eta_range\":null,\"eta_"
            "reason\":\"no_worker\"}]}");
  EXPECT_EQ(peer.next()->type, FrameType::kDone);
  submit(peer, 2, {.method = "GET", .path = "/v1/models/demo"});
  EXPECT_EQ(peer.next()->as<wire::Head>().status, 200U);
  submit(peer, 3, {.method = "GET", .path = "/v1/models/nope"});
  EXPECT_EQ(failure(expect(peer, FrameType::kFailed)).status, 404U);
}

TEST_F(DispatcherTest, OtherMethodsThanPostAreNotAllowed) {
  Peer peer = caller();
  submit(peer, 1, {.method = "GET", .path = "/v1/completions"});
  const auto refused = *peer.next();
  EXPECT_EQ(failure(refused).status, 405U);
  EXPECT_EQ(failure(refused).headers, "Allow: POST\n");
  submit(peer, 2, {.method = "DELETE", .path = "/v1/models"});
  EXPECT_EQ(failure(*peer.next()).headers, "Allow: GET, HEAD\n");
}

TEST_F(DispatcherTest, AWorkerThatSaysHeadersBreaksTheProtocol) {
  Peer peer = caller();
  Peer device = worker(1);
  submit(peer, 1);
  device.send(device.next()->id,
              wire::Failed{.status = 400, .message = "no", .headers = "Set-Cookie: a=b\n"});
  turn();
  EXPECT_EQ(expect(device, FrameType::kGoodbye).type, FrameType::kGoodbye);
}

TEST_F(DispatcherTest, AFullQueueIsBusy) {
  config_.queues[0].max_length = 1;
  apply();
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  submit(peer, 2);
  submit(peer, 3);
  const auto received = expect(peer, FrameType::kFailed);
  EXPECT_EQ(received.id, 3U);
  EXPECT_EQ(failure(received).status, 503U);
  EXPECT_EQ(failure(received).code, "busy");
  EXPECT_GE(failure(received).retry_after_s, 1U);
}

TEST_F(DispatcherTest, NoCrowdIsToldLaterThanTheFullQueueTakesToEmpty) {
  config_.queues[0].max_length = 3;
  config_.queues[0].max_per_owner = 3;
  apply();
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  const uint64_t first = device.next()->id;
  advance(10 * kNsPerSec);
  device.send(first, wire::Head{200, "text/plain", 1});
  device.send(first, wire::Done{});
  device.send(0, wire::Take{1});
  turn();
  for (uint64_t id = 2; id < 6; ++id) {  // one runs, three wait: one leaves each five seconds
    submit(peer, id);
  }
  std::vector<uint64_t> told;
  for (uint64_t id = 6; id < 206; ++id) {
    const std::string made_up = "Bearer " + std::to_string(id);
    wire::Submit message = post();
    message.owner = made_up;
    submit(peer, id, message);
    told.push_back(failure(expect(peer, FrameType::kFailed)).retry_after_s);
  }
  EXPECT_LE(told[0], 6U) << "when the first place comes free";
  EXPECT_LT(told[0], told[1]);
  EXPECT_LT(told[1], told[2]);
  EXPECT_LE(*std::max_element(told.begin(), told.end()), 16U);
  const Scheduler::Queue& queue = *dispatcher_.scheduler().find_queue("default");
  EXPECT_LE(dispatcher_.returns_until_ns(queue), now_ns_ + 16 * kNsPerSec);
}

TEST_F(DispatcherTest, AnOwnerWithTooManyJobsIsToldThatTheyAreItsOwn) {
  config_.queues[0].max_per_owner = 1;
  apply();
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  submit(peer, 2);
  submit(peer, 3);
  wire::Submit anothers = post();
  anothers.owner = "Bearer sk-another";
  submit(peer, 4, anothers);
  const auto received = expect(peer, FrameType::kFailed);
  EXPECT_EQ(received.id, 3U);
  EXPECT_EQ(failure(received).status, 503U);
  EXPECT_EQ(failure(received).code, "busy");
  EXPECT_EQ(failure(received).retry_after_s, 1U);
  EXPECT_EQ(failure(received).message,
            "You have 1 jobs waiting in queue default, as many as one caller may have. "
            "Try again in 1 s.");
  // Before the first owner's second job: it has had none yet.
  EXPECT_EQ(expect(peer, FrameType::kAccepted).as<wire::Accepted>().position, 1U);
}

TEST_F(DispatcherTest, WhoHasNoOwnerHasAShareOfItsOwn) {
  config_.queues[0].max_per_owner = 1;
  apply();
  Peer device = worker(1);
  Peer peer = caller();
  uint64_t id = 0;
  for (const char* share : {"192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"}) {
    wire::Submit message = post();
    message.owner = "";
    message.share = share;
    submit(peer, ++id, message);
  }
  EXPECT_EQ(expect(peer, FrameType::kFailed).id, 3U);
  // Before the second of the one that floods.
  EXPECT_EQ(expect(peer, FrameType::kAccepted).as<wire::Accepted>().position, 1U);
  const auto job = device.next();
  ASSERT_TRUE(job);
  EXPECT_EQ(job->as<wire::Submit>().share, "");  // workers are not told
  EXPECT_EQ(job->payload.find("192.0.2"), std::string::npos);
}

TEST_F(DispatcherTest, OwnersTakeTurnsAndThoseWithoutANameAreOne) {
  Peer device = worker(1);
  Peer peer = caller();
  uint64_t id = 0;
  for (const char* owner : {"a", "a", "a", "b", "", "", "b"}) {
    const std::string body = std::string(owner) + std::to_string(++id);
    wire::Submit message = post(body);
    message.owner = owner;
    submit(peer, id, message);
  }
  std::vector<std::string> order;
  while (const auto job = device.next()) {
    order.emplace_back(job->as<wire::Submit>().body);
    device.send(job->id, wire::Failed{.status = 400, .code = "invalid_request"});
    device.send(0, wire::Take{1});
    turn();
  }
  EXPECT_EQ(order, (std::vector<std::string>{"a1", "b4", "5", "a2", "6", "b7", "a3"}));
}

TEST_F(DispatcherTest, WeightAndCostOfTheSubmitSayWhoIsNext) {
  Peer peer = caller();
  Peer holder = worker(1);
  submit(peer, 1);  // holds the only slot
  uint64_t id = 1;
  const auto queue_up = [&](const char* owner, uint64_t weight, uint64_t cost) {
    wire::Submit message = post(owner);
    message.owner = owner;
    message.weight = weight;
    message.cost = cost;
    submit(peer, ++id, message);
  };
  for (int i = 0; i < 4; ++i) {
    queue_up("heavy", 2, 100);
    queue_up("light", 1, 100);
  }
  std::string order;
  auto job = holder.next();
  for (int i = 0; i < 7; ++i) {
    holder.send(job->id, wire::Failed{.status = 400, .code = "invalid_request"});
    holder.send(0, wire::Take{1});
    turn();
    job = holder.next();
    ASSERT_TRUE(job);
    order += job->as<wire::Submit>().body.front();
  }
  EXPECT_EQ(order, "hlhlhhl");  // twice as often, the earlier of two equals first
}

TEST_F(DispatcherTest, APausedQueueTakesJobsInAndGivesNoneOutUntilItIsResumed) {
  Peer device = worker(2);
  Peer peer = caller();
  Scheduler::Queue& queue = *dispatcher_.scheduler().find_queue("default");
  dispatcher_.pause(queue);
  submit(peer, 1);
  EXPECT_EQ(peer.next()->as<wire::Accepted>().position, 1U);
  EXPECT_FALSE(device.next());
  dispatcher_.resume(queue);
  turn();
  EXPECT_TRUE(device.next());
}

TEST_F(DispatcherTest, ABodyOverTheLimitIsTooLarge) {
  config_.limits.max_body_bytes = 10;
  apply();
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1, post("0123456789"));
  EXPECT_EQ(peer.next()->type, FrameType::kAccepted);
  submit(peer, 2, post("0123456789x"));
  EXPECT_EQ(failure(*peer.next()).status, 413U);
}

TEST_F(DispatcherTest, BodiesTogetherAreBounded) {
  config_.limits.max_held_bytes = 1000;
  apply();
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1, post(std::string(500, 'x')));
  submit(peer, 2, post(std::string(500, 'x')));
  EXPECT_EQ(failure(expect(peer, FrameType::kFailed)).status, 503U);
}

TEST_F(DispatcherTest, CallersWaitForANewWorkerDuringTheGrace) {
  Peer peer = caller();
  submit(peer, 1);
  EXPECT_EQ(peer.next()->as<wire::Accepted>().position, 1U) << "it may be loading its model";
  advance(config_.limits.worker_grace_ns + kNsPerSec);
  const auto told = expect(peer, FrameType::kFailed);
  EXPECT_EQ(told.id, 1U);
  EXPECT_EQ(failure(told).status, 503U);
  EXPECT_EQ(failure(told).retry_after_s, 1U);
  submit(peer, 2);
  EXPECT_EQ(failure(expect(peer, FrameType::kFailed)).message,
            "No worker of queue default is up. Try again in 1 s.");
  const Peer device = worker(1);
  submit(peer, 3);
  EXPECT_EQ(expect(peer, FrameType::kAccepted).id, 3U);
}

TEST_F(DispatcherTest, WhoWaitsForAWorkerIsToldWhenItIsExpected) {
  ServedModels& served = dispatcher_.served();
  served.starting("demo", now_ns_);
  advance(5 * kNsPerSec);
  Peer device = worker(1);  // so that took 5 s
  device.close();
  turn();
  served.expect("demo", now_ns_ + 2 * kNsPerSec);
  Peer peer = caller();
  submit(peer, 1);
  EXPECT_NEAR(static_cast<double>(peer.next()->as<wire::Accepted>().eta_ms), 7000, 100);
  advance(3 * kNsPerSec);
  served.starting("demo", now_ns_);
  advance(kNsPerSec);
  wire::Submit hasty = post();
  hasty.max_wait_ms = 3000;
  submit(peer, 2, hasty);
  const auto refused = failure(expect(peer, FrameType::kFailed));
  EXPECT_EQ(refused.status, 503U);
  EXPECT_EQ(refused.retry_after_s, 1U) << "4 s are left, and it would wait 3";
}

TEST_F(DispatcherTest, CallersWaitForALostWorkerDuringTheGrace) {
  Peer device = worker(1);
  device.close();
  turn();
  Peer peer = caller();
  advance(config_.limits.worker_grace_ns / 2);
  submit(peer, 1);
  EXPECT_EQ(peer.next()->as<wire::Accepted>().position, 1U);
  advance(config_.limits.worker_grace_ns);
  EXPECT_EQ(expect(peer, FrameType::kFailed).id, 1U) << "it has waited for nobody";
  submit(peer, 2);
  EXPECT_EQ(expect(peer, FrameType::kFailed).id, 2U);
}

TEST_F(DispatcherTest, ADrainingQueueRefusesAndFinishesWhatItHas) {
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  submit(peer, 2);
  dispatcher_.drain();
  submit(peer, 3);
  EXPECT_EQ(expect(peer, FrameType::kFailed).id, 3U);
  EXPECT_EQ(dispatcher_.jobs(), 2U);
}

TEST_F(DispatcherTest, WhatIsNotFinishedAtTheEndIsToldToComeBack) {
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  submit(peer, 2);
  dispatcher_.drain();
  dispatcher_.give_up();
  turn();
  std::set<uint64_t> told;
  for (int i = 0; i < 2; ++i) {
    const auto received = expect(peer, FrameType::kFailed);
    told.insert(received.id);
    EXPECT_EQ(failure(received).retry_after_s, 5U);
  }
  EXPECT_EQ(told, (std::set<uint64_t>{1, 2}));
  EXPECT_EQ(dispatcher_.jobs(), 0U);
}

TEST_F(DispatcherTest, ADeadlineEndsTheJobAndTellsItsWorker) {
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  advance(config_.queues[0].deadline_ns);
  const auto received = expect(peer, FrameType::kFailed);
  EXPECT_EQ(failure(received).status, 504U);
  EXPECT_EQ(failure(received).code, "deadline_exceeded");
  EXPECT_EQ(expect(device, FrameType::kCancel).id, 1U);
}

TEST_F(DispatcherTest, EachCallerHearsOfEachJobAtLeastEachFifteenSeconds) {
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  submit(peer, 2);
  while (peer.next()) {
  }
  for (int i = 0; i < 3; ++i) {
    advance(15 * kNsPerSec);
    std::map<uint64_t, uint64_t> positions;
    for (int said = 0; said < 2; ++said) {
      const auto progress = peer.next();
      positions[progress->id] = progress->as<wire::Progress>().position;
    }
    EXPECT_EQ(positions, (std::map<uint64_t, uint64_t>{{1, 0}, {2, 1}}));
    EXPECT_FALSE(peer.next());
  }
}

TEST_F(DispatcherTest, AnAnswerThatIsNotReadIsCutShort) {
  config_.limits.max_unsent_bytes = 100'000;
  apply();
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  const uint64_t number = device.next()->id;
  device.send(number, wire::Head{200, "text/plain"});
  std::string chunk;
  wire::append_chunk(chunk, number, std::string(60'000, 'x'));
  send_until_cancelled(device, chunk, 100);
  std::optional<Peer::Received> last;
  for (int i = 0; i < 100; ++i) {
    while (auto received = peer.next()) {
      last = std::move(received);
    }
    turn();
  }
  EXPECT_EQ(failure(*last).message, "The answer was cut short: it was not read fast enough.");
}

TEST_F(DispatcherTest, AReasonWithoutEndIsCut) {
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  std::string reason(WorkerSession::kMaxReason - 1, 'x');
  for (int i = 0; i < 100'000; ++i) {
    reason += "\xC3\xA4";
  }
  device.send(device.next()->id, wire::Failed{.status = 500,
                                              .code = std::string(5000, 'c'),
                                              .message = reason,
                                              .param = std::string(5000, 'p')});
  turn();
  std::optional<Peer::Received> last;
  while (auto received = peer.next()) {
    last = std::move(received);
  }
  ASSERT_TRUE(last);
  const auto told = last->as<wire::Failed>();
  EXPECT_EQ(told.message, reason.substr(0, WorkerSession::kMaxReason - 1)) << "no half characters";
  EXPECT_LE(told.code.size() + told.param.size(), 2 * WorkerSession::kMaxNameBytes);
}

TEST_F(DispatcherTest, ProgressThatIsNotReadEndsTheJobToo) {
  config_.limits.max_unsent_bytes = 100'000;
  apply();
  Peer device = worker(1);
  Peer peer = caller();
  submit(peer, 1);
  const uint64_t number = device.next()->id;
  std::string frames;
  for (int i = 0; i < 1000; ++i) {
    wire::append(frames, number, wire::Progress{.millionths = 1});
  }
  send_until_cancelled(device, frames, 500);
}

TEST_F(DispatcherTest, WorkersThatBreakARuleLoseTheirConnectionAndTheirJobsGoBack) {
  Peer peer = caller();
  Peer device = worker(1);
  submit(peer, 1);
  device.send(999, wire::Head{200});
  turn();
  EXPECT_TRUE(device.hung_up());
  EXPECT_EQ(last_words_, "it broke the protocol: a frame for a job it was not given");
  EXPECT_EQ(dispatcher_.jobs(), 1U);
  Peer next = worker(1);
  EXPECT_TRUE(next.next());
}

TEST_F(DispatcherTest, AWorkersAnswerMustComeInOrder) {
  Peer peer = caller();
  submit(peer, 1);
  const auto breaks = [&](const std::string& rule, auto&& say) {
    Peer device = worker(1);
    submit(peer, 100 + connections_.protocol_errors());
    const auto job = device.next();
    ASSERT_TRUE(job);
    say(device, job->id);
    turn();
    EXPECT_EQ(last_words_, "it broke the protocol: " + rule);
    advance(10 * kNsPerSec);
  };
  breaks("CHUNK before HEAD", [](Peer& device, uint64_t id) {
    std::string bytes;
    wire::append_chunk(bytes, id, "x");
    device.send_bytes(bytes);
  });
  breaks("DONE before HEAD", [](Peer& device, uint64_t id) { device.send(id, wire::Done{}); });
  breaks("a second HEAD", [](Peer& device, uint64_t id) {
    device.send(id, wire::Head{200});
    device.send(id, wire::Head{200});
  });
  breaks("FAILED without an error status",
         [](Peer& device, uint64_t id) { device.send(id, wire::Failed{}); });
  breaks("TAKE asks for too many jobs",
         [](Peer& device, uint64_t) { device.send(0, wire::Take{UINT64_MAX}); });
  breaks("a frame that workers do not send",
         [](Peer& device, uint64_t) { device.send_empty(FrameType::kDrain, 0); });
}

TEST_F(DispatcherTest, AWorkerMustBeTheOneThatWasStarted) {
  Peer device = connect_worker();
  device.send(0, wire::Hello{.version = 1, .role = 2, .name = "mallory", .slots = 1});
  turn();
  EXPECT_EQ(last_words_, "it broke the protocol: HELLO is not from the worker that was started");
}

TEST_F(DispatcherTest, HowAWorkerTakesChatsIsKeptSoFarAsItMayBeLong) {
  Peer device = worker(1);
  EXPECT_EQ(worker_->chat(), "");
  const std::string chat(WorkerSession::kMaxChat - 1, 'x');
  device.send(0, wire::Hello{.version = 1,
                             .role = 2,
                             .name = "demo",
                             .model = "demo",
                             .slots = 2,
                             .chat = chat + "ä, and more"});
  turn();
  EXPECT_EQ(worker_->chat(), chat) << "and ends with a whole letter";
}

TEST_F(DispatcherTest, AWorkersLastWordsAreKept) {
  Peer device = connect_worker();
  device.send(0, wire::Goodbye{"models/demo has no config.json"});
  turn();
  EXPECT_EQ(last_words_, "models/demo has no config.json");
  EXPECT_EQ(connections_.protocol_errors(), 0U);
}

TEST_F(DispatcherTest, ADrainingWorkerGetsNoMoreJobs) {
  Peer device = worker(2);
  Peer peer = caller();
  submit(peer, 1);
  dispatcher_.worker_leaving(*worker_);
  submit(peer, 2);
  EXPECT_EQ(device.next()->type, FrameType::kSubmit);
  EXPECT_EQ(device.next()->type, FrameType::kDrain);
  EXPECT_FALSE(device.next());
}

TEST_F(DispatcherTest, AQueuesSlotsFollowItsWorkers) {
  const auto slots = [&] {
    return dispatcher_.slots(*dispatcher_.scheduler().find_queue("default"));
  };
  EXPECT_EQ(slots(), 0U);
  Peer silent = connect_worker();
  EXPECT_EQ(slots(), 0U) << "it has said nothing yet";
  Peer first = worker(1, "demo#2");
  Peer second = worker(1, "demo#3");
  EXPECT_EQ(slots(), 4U);
  dispatcher_.worker_leaving(*worker_);
  EXPECT_EQ(slots(), 2U);
  first.send(0, wire::Goodbye{"enough"});
  turn();
  EXPECT_EQ(slots(), 0U);
}

// A worker may have 65,536 jobs, each with a frame for each word.
TEST_F(DispatcherTest, AFrameCostsTheSameHoweverManyJobsItsWorkerHas) {
  constexpr uint32_t kJobs = 20'000;
  constexpr uint32_t kOnOneConnection = 1000;
  config_.queues[0].max_per_owner = kJobs;
  apply();
  Peer device = worker(kJobs);
  std::deque<Peer> callers;
  uint64_t first = 0;
  uint64_t last = 0;
  const auto give = [&](uint32_t jobs) {
    for (uint32_t i = 0; i < jobs; ++i) {
      if (i % kOnOneConnection == 0) {
        callers.push_back(caller());
      }
      callers.back().send(i + 1, post());
      if (i % 100 == 99) {
        turn();
        while (const auto job = device.next()) {
          first = first == 0 ? job->id : first;
          last = job->id;
        }
      }
    }
  };
  // The fastest of some rounds, each of frames for the first job and the last.
  const auto round_ns = [&] {
    int64_t best_ns = INT64_MAX;
    std::string frames;
    for (int i = 0; i < 100; ++i) {
      wire::append(frames, first, wire::Progress{.millionths = 1});
      wire::append(frames, last, wire::Progress{.millionths = 1});
    }
    for (int round = 0; round < 10; ++round) {
      device.send_bytes(frames);
      const int64_t began_ns = monotonic_ns();
      loop_.run_once(0, 0);
      best_ns = std::min(best_ns, monotonic_ns() - began_ns);
      turn();
    }
    return best_ns;
  };
  give(kOnOneConnection / 10);
  const int64_t few_ns = round_ns();
  give(kJobs - kOnOneConnection / 10);
  EXPECT_EQ(worker_->running(), kJobs);
  EXPECT_LT(round_ns(), 10 * few_ns);
}

TEST_F(DispatcherTest, JobsWhoseModelIsRemovedByAReloadFail) {
  Peer device = worker(1);
  Peer peer = caller();
  wire::Submit message = post();
  message.model = "demo";
  submit(peer, 1, message);
  submit(peer, 2, message);
  config_.workers[0].model_name = "other";
  config_.workers[0].model = "other";
  apply();
  turn();
  const auto received = expect(peer, FrameType::kFailed);
  EXPECT_EQ(received.id, 2U);
  EXPECT_EQ(failure(received).status, 404U);
  EXPECT_EQ(dispatcher_.jobs(), 1U);
}

}  // namespace
}  // namespace penstock::queue
