// Who says by when a job is to have started, or to be done; the test plays Nginx and the worker.
#include "promise_fixture.h"

namespace penstock::queue {
namespace {

using Type = wire::FrameType;

class WithinTest : public PromiseTest {
 protected:
  // A worker with one slot, whose jobs are known to take ten seconds.
  WithinTest() : device_(worker(1)) {
    submit(other_, 1, post());
    run(other_);
  }
  // Its next job, from start to end.
  void run(Peer& peer) {
    const uint64_t job = started();
    advance(10 * kNsPerSec);
    end(job);
    while (peer.next()) {
    }
  }
  uint64_t started() {
    const auto frame = device_.next();
    EXPECT_TRUE(frame && frame->type == Type::kSubmit);
    return frame ? frame->id : 0;
  }
  void end(uint64_t job) {
    device_.send(job, wire::Head{.status = 200});
    device_.send(job, wire::Done{});
    device_.send(0, wire::Take{1});
    settle();
  }
  // Another's job has the slot for the next ten seconds, and `more` wait.
  uint64_t occupy(int more = 0) {
    for (int i = 0; i <= more; ++i) {
      submit(other_, ++last_, post());
    }
    return started();
  }
  static wire::Submit within(uint64_t start_s, uint64_t finish_s, wire::Submit message = post()) {
    message.owner = "Bearer sk-in-a-hurry";
    message.start_within_ms = start_s * 1000;
    message.finish_within_ms = finish_s * 1000;
    return message;
  }
  // What `peer` was answered under that id; signs of life left out.
  static std::optional<wire::Failed> failure(Peer& peer, std::string& keep) {
    while (auto frame = peer.next()) {
      if (frame->type == Type::kFailed) {
        keep = frame->payload;
        wire::Failed failed;
        EXPECT_EQ(wire::parse(keep, failed), nullptr);
        return failed;
      }
    }
    return std::nullopt;
  }

  Peer other_ = caller();
  Peer device_;
  uint64_t last_ = 100;
  std::string keep_;
};

TEST_F(WithinTest, WhatWouldStartTooLateIsRefusedAtOnce) {
  occupy(2);
  Peer peer = caller();
  wire::Submit message = within(20, 0);  // it would be some thirty
  message.owner = post().owner;
  submit(peer, 1, message);
  const auto failed = failure(peer, keep_);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->status, 503U);
  EXPECT_EQ(failed->code, "busy");
  EXPECT_NE(failed->message.find("It would start in "), std::string::npos) << failed->message;
  EXPECT_GE(failed->retry_after_s, 8U);
  EXPECT_LE(failed->retry_after_s, 40U);
  submit(peer, 2, within(60, 0));
  EXPECT_FALSE(failure(peer, keep_));
}

TEST_F(WithinTest, WhatWouldBeDoneTooLateIsRefusedAtOnce) {
  Peer peer = caller();
  submit(peer, 1, within(0, 5));  // the slot is free, and the job takes ten and a little
  const auto failed = failure(peer, keep_);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->message.find("Such a job takes 11 s once it has started"), 0U)
      << failed->message;
  submit(peer, 2, within(0, 12));
  EXPECT_FALSE(failure(peer, keep_));
}

TEST_F(WithinTest, WhatHasNotStartedInTimeIsDroppedThen) {
  occupy();
  Peer peer = caller();
  submit(peer, 1, within(15, 0));
  advance(14 * kNsPerSec);
  EXPECT_FALSE(failure(peer, keep_)) << keep_;
  advance(kNsPerSec);
  const auto failed = failure(peer, keep_);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->status, 504U);
  EXPECT_EQ(failed->code, "deadline_exceeded");
  EXPECT_EQ(failed->message, "The job had not started by the time that was asked for.");
  EXPECT_EQ(dispatcher_.jobs(), 1U);
}

TEST_F(WithinTest, WhatStartedInTimeMayTakeAsLongAsItWants) {
  const uint64_t first = occupy();
  Peer peer = caller();
  submit(peer, 1, within(15, 0));
  advance(10 * kNsPerSec);
  end(first);
  const uint64_t job = started();
  advance(500 * kNsPerSec);  // its queue's deadline is ten minutes
  EXPECT_FALSE(failure(peer, keep_)) << keep_;
  EXPECT_NE(job, 0U);
}

TEST_F(WithinTest, WhatStartedInTimeIsStillToBeDoneInTime) {
  const uint64_t first = occupy();
  Peer peer = caller();
  submit(peer, 1, within(15, 30));
  advance(10 * kNsPerSec);
  end(first);
  started();
  advance(20 * kNsPerSec - kNsPerSec);
  EXPECT_FALSE(failure(peer, keep_));
  advance(kNsPerSec);
  const auto failed = failure(peer, keep_);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->message, "The job was not done by its deadline.");
  EXPECT_EQ(device_.next()->type, Type::kCancel);
}

TEST_F(WithinTest, TheWorkerIsToldTheTimeThatIsLeft) {
  Peer peer = caller();
  submit(peer, 1, within(15, 30));
  const auto frame = device_.next();
  EXPECT_EQ(frame->as<wire::Submit>().deadline_ms, 30'000U);
}

TEST_F(WithinTest, APromisedJobExpiresToo) {
  occupy();
  Peer peer = caller();
  wire::Submit message = within(15, 0, async());
  message.owner = post().owner;
  submit(peer, 1, message);
  const std::string id = reply(peer, 1).job_id;
  advance(15 * kNsPerSec);
  settle();
  peer.send(2, get("/" + id));
  settle();
  const std::string body = reply(peer, 2).body;
  EXPECT_NE(body.find("\"status\":\"expired\""), std::string::npos) << body;
  EXPECT_NE(body.find("\"counted\":false"), std::string::npos) << body;
  EXPECT_NE(body.find("\"expires_at\":17"), std::string::npos) << body;
}

TEST_F(WithinTest, AScheduledJobHasItsTimeFromWhenItIsDue) {
  occupy(9);
  Peer peer = caller();
  wire::Submit later = within(5, 0, async());
  later.delay = "20";
  submit(peer, 1, later);
  EXPECT_EQ(reply(peer, 1).status, 202U) << "what waits now says nothing of then";
  advance(20 * kNsPerSec);
  EXPECT_EQ(dispatcher_.jobs(), 11U);
  advance(5 * kNsPerSec);
  settle();
  EXPECT_EQ(dispatcher_.jobs(), 10U);
}

TEST_F(WithinTest, APausedQueuePromisesNothing) {
  dispatcher_.pause(*dispatcher_.scheduler().find_queue("default"));
  Peer peer = caller();
  submit(peer, 1, within(0, 100));
  EXPECT_EQ(failure(peer, keep_)->status, 503U);
}

}  // namespace
}  // namespace penstock::queue
