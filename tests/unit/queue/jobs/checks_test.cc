// What is to be promised is shown to a worker first; the test plays the worker.
#include "promise_fixture.h"

namespace penstock::queue {
namespace {

class ChecksTest : public PromiseTest {
 protected:
  // One that answers CHECK, ready for `credit` jobs.
  Peer checking_worker(uint64_t credit = 0, const std::string& name = "demo") {
    Peer peer = connect_worker(name);
    peer.send(0, wire::Hello{.version = 1,
                             .role = 2,
                             .name = name,
                             .model = "demo",
                             .slots = 2,
                             .checks = static_cast<uint64_t>(checking_)});
    peer.send(0, wire::Take{1});
    turn();
    if (credit == 0) {  // busy: ready, but with no room for a job
      Peer busy = caller();
      wire::Submit other = post();
      other.owner = "Bearer sk-busy";
      busy.send(1, other);
      turn();
      take(peer);
      others_.push_back(std::move(busy));
    }
    return peer;
  }
  // The number of the check that the worker is to answer next; 0: it was asked nothing.
  static uint64_t shown(Peer& device, std::string* body = nullptr) {
    const auto frame = device.next();
    if (!frame || frame->type != wire::FrameType::kCheck) {
      return 0;
    }
    wire::Submit submit;
    EXPECT_EQ(wire::parse(frame->payload, submit), nullptr);
    EXPECT_EQ(submit.owner, "");
    EXPECT_EQ(submit.receipt, "");
    if (body != nullptr) {
      *body = submit.body;
    }
    return frame->id;
  }
  void refuse(Peer& device, uint64_t number) {
    device.send(number, wire::Checked{400, "invalid_request", "n must be 1.", "n"});
    settle();
  }
  void consent(Peer& device, uint64_t number) {
    device.send(number, wire::Checked{});
    settle();
  }

  wire::Checking checking_ = wire::Checking::kAll;
  std::vector<Peer> others_;
};

TEST_F(ChecksTest, WhatTheEngineRefusesIsRefusedAndNeverWasAJob) {
  Peer device = checking_worker();
  const size_t before = dispatcher_.jobs();
  Peer peer = caller();
  submit(peer, 1, async("{\"n\":2}"));
  EXPECT_FALSE(peer.next()) << "nothing is promised before the worker has spoken";
  std::string body;
  const uint64_t number = shown(device, &body);
  ASSERT_NE(number, 0U);
  EXPECT_EQ(body, "{\"n\":2}");
  refuse(device, number);
  const auto frame = peer.next();
  const auto failed = frame->as<wire::Failed>();
  EXPECT_EQ(failed.status, 400U);
  EXPECT_EQ(failed.message, "n must be 1.");
  EXPECT_EQ(failed.param, "n");
  EXPECT_EQ(dispatcher_.jobs(), before);
  EXPECT_NE(ask(peer, 2, get("")).body.find(R"("data":[])"), std::string::npos);
}

TEST_F(ChecksTest, WhatIsInOrderIsPromisedWhetherAtOnceOrLater) {
  Peer device = checking_worker();
  Peer peer = caller();
  wire::Submit later = async();
  later.delay = "3600";
  uint64_t id = 0;
  for (const wire::Submit& message : {async(), later, keyed(async())}) {
    submit(peer, ++id, message);
    consent(device, shown(device));
    EXPECT_EQ(reply(peer, id).status, 202U);
  }
}

TEST_F(ChecksTest, WhoWaitsForTheAnswerIsNotHeldUp) {
  Peer device = checking_worker(1);
  Peer peer = caller();
  submit(peer, 1, post());
  const auto job = device.next();
  ASSERT_TRUE(job);
  EXPECT_EQ(job->type, wire::FrameType::kSubmit);
}

TEST_F(ChecksTest, SilenceIsConsent) {
  Peer device = checking_worker();
  Peer peer = caller();
  submit(peer, 1, async());
  const uint64_t number = shown(device);
  ASSERT_NE(number, 0U);
  EXPECT_LE(dispatcher_.next_event(), now_ns_ + config_.limits.check_timeout_ns);
  advance(config_.limits.check_timeout_ns);
  settle();
  EXPECT_EQ(reply(peer, 1).status, 202U);
  refuse(device, number);  // too late
  EXPECT_FALSE(peer.next());
  EXPECT_FALSE(device.hung_up()) << last_words_;
}

TEST_F(ChecksTest, AWorkerThatIsLostHoldsNoPromiseUp) {
  Peer device = checking_worker();
  Peer peer = caller();
  submit(peer, 1, async());
  ASSERT_NE(shown(device), 0U);
  device.close();
  settle();
  EXPECT_EQ(reply(peer, 1).status, 202U);
}

TEST_F(ChecksTest, NobodyIsAskedWhereNoWorkerAnswersChecks) {
  Peer peer = caller();
  EXPECT_EQ(promised(peer, 1).substr(0, 4), "job_");
  Peer device = worker(1);
  take(device);
  promised(peer, 2);
  EXPECT_EQ(shown(device), 0U);
}

TEST_F(ChecksTest, AnEngineIsNotShownWhatItRefusesNever) {
  checking_ = wire::Checking::kCompletions;
  Peer device = checking_worker();
  Peer peer = caller();
  wire::Submit other = async();
  other.path = "/work";
  promised(peer, 1, other);
  submit(peer, 2, async());
  EXPECT_NE(shown(device), 0U);
}

TEST_F(ChecksTest, TooMuchAtOnceIsPromisedUnseen) {
  config_.limits.max_checking_bytes = 3 * Checks::kLeastBytes;
  apply();
  Peer device = checking_worker();
  Peer peer = caller();
  for (uint64_t id = 1; id <= 3; ++id) {
    submit(peer, id, async());
    EXPECT_FALSE(peer.next()) << id;
  }
  promised(peer, 4);
  consent(device, shown(device));
  EXPECT_EQ(reply(peer, 1).status, 202U);
  submit(peer, 5, async(std::string(Checks::kLeastBytes, 'x')));
  EXPECT_EQ(reply(peer, 5).status, 202U) << "a little more than there is room for";
  submit(peer, 6, async());
  EXPECT_FALSE(peer.next());
}

TEST_F(ChecksTest, WithoutATimeNobodyIsAsked) {
  config_.limits.check_timeout_ns = 0;
  apply();
  Peer device = checking_worker();
  Peer peer = caller();
  promised(peer, 1);
}

TEST_F(ChecksTest, TheSameKeyWaitsForTheSameCheckAndIsFreeWhenItFails) {
  Peer device = checking_worker();
  Peer peer = caller();
  Peer other = caller();
  submit(peer, 1, keyed(async("{\"n\":2}")));
  submit(other, 1, keyed(async("{\"n\":2}")));
  const uint64_t number = shown(device);
  EXPECT_EQ(shown(device), 0U) << "one request, one check";
  refuse(device, number);
  EXPECT_EQ(reply(peer, 1).status, 400U);
  EXPECT_EQ(reply(other, 1).status, 400U);
  submit(peer, 2, keyed(async("{\"n\":1}")));
  consent(device, shown(device));
  EXPECT_EQ(reply(peer, 2).status, 202U);
}

TEST_F(ChecksTest, WhoLeavesMeanwhileLeavesNothing) {
  Peer device = checking_worker();
  const size_t before = dispatcher_.jobs();
  Peer peer = caller();
  submit(peer, 1, async());
  const uint64_t number = shown(device);
  peer.close();
  settle();
  EXPECT_EQ(dispatcher_.jobs(), before);
  consent(device, number);
  EXPECT_EQ(dispatcher_.jobs(), before);
}

TEST_F(ChecksTest, WhoIsBeingCheckedWhenTheServiceStopsIsTold) {
  Peer device = checking_worker();
  Peer peer = caller();
  submit(peer, 1, async());
  dispatcher_.drain();
  dispatcher_.give_up();
  turn();
  EXPECT_EQ(reply(peer, 1).status, 503U);
}

TEST_F(ChecksTest, AWorkerMayNotAnswerWhatItWasNotAsked) {
  Peer device = checking_worker();
  device.send(77, wire::Checked{});
  turn();
  EXPECT_NE(last_words_.find("CHECKED for a number it was not given"), std::string::npos);
}

}  // namespace
}  // namespace penstock::queue
