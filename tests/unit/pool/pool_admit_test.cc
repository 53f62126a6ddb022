// An engine that takes its time to admit: it does so on another thread, and steps go on.
#include <poll.h>

#include <atomic>
#include <stdexcept>

#include "shared/base/mutex.h"
#include "tests/unit/pool/pool_fixture.h"

namespace penstock::test {
namespace {

// Longer than what is read where it comes.
const std::string kLong(8000, 'x');

// Admits a long request only as the test lets it, so many a turn.
class SlowReader final : public EndlessEngine {
 public:
  using EndlessEngine::EndlessEngine;

  bool admits_beside_steps() const override { return true; }
  std::variant<std::unique_ptr<Plan>, Failure> admit(const Request& request) override {
    EXPECT_FALSE(reading_.exchange(true)) << "two at once";
    const std::string body(request.body);
    if (body.size() > 100) {
      const MutexLock lock(mutex_);
      at_it_ = true;
      changed_.notify_all();
      while (may_read_ == 0) {
        changed_.wait(mutex_);
      }
      --may_read_;
      at_it_ = false;
    }
    EXPECT_EQ(request.body, body) << "its memory is held";
    reading_ = false;
    if (body.starts_with("bad")) {
      return Failure{400, "invalid_request", "it is bad", "prompt", false};
    }
    if (body.starts_with("throw")) {
      throw std::runtime_error("it broke");
    }
    auto plan = std::make_unique<Plan>();
    plan->memory_bytes = 6;
    return plan;
  }

  // So many long requests more may be read.
  void let(int requests) {
    {
      const MutexLock lock(mutex_);
      may_read_ += requests;
    }
    changed_.notify_all();
  }

  void wait_until_it_reads() {
    const MutexLock lock(mutex_);
    while (!at_it_) {
      changed_.wait(mutex_);
    }
  }

 private:
  std::atomic<bool> reading_ = false;
  Mutex mutex_;
  CondVar changed_;
  int may_read_ GUARDED_BY(mutex_) = 0;
  bool at_it_ GUARDED_BY(mutex_) = false;
};

class PoolAdmitTest : public PoolTest {
 protected:
  void make_slow(uint32_t slots, int64_t memory_bytes = 0, bool claims = false) {
    open_link();
    auto engine = std::make_unique<SlowReader>(*sink_);
    engine_ = engine.get();
    start_pool(std::move(engine), slots, memory_bytes, claims);
    turn();
    receive();
  }
  ~PoolAdmitTest() override {
    if (engine_ != nullptr) {
      engine_->let(1000);  // else the pool waits for them
    }
  }

  // A turn that has the verdict of what was read.
  void turn_once_read() {
    pollfd read{pool_->admitted_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&read, 1, 20'000), 1);
    turn();
  }
  void let(int requests) {
    for (int i = 0; i < requests; ++i) {
      engine_->let(1);
      turn_once_read();
    }
  }
  using Jobs = std::vector<JobNumber>;

  SlowReader* engine_ = nullptr;
};

TEST_F(PoolAdmitTest, StepsGoOnWhileALongRequestIsRead) {
  make_slow(2);
  submit(1, "short");
  turn();
  ASSERT_EQ(engine_->running, Jobs{1}) << "what is short is read at once";
  submit(2, kLong);
  turn();
  const int before = engine_->steps;
  for (int i = 0; i < 100; ++i) {
    turn();
  }
  EXPECT_EQ(engine_->steps, before + 100);
  EXPECT_EQ(engine_->running, Jobs{1});
  EXPECT_EQ(pool_->waiting(), 1U);
  let(1);
  EXPECT_EQ(engine_->running, (Jobs{1, 2}));
  EXPECT_EQ(pool_->waiting(), 0U);
}

TEST_F(PoolAdmitTest, AReadingThatHangsIsToldOfAsAStepIs) {
  make_slow(1);
  submit(1, kLong);
  turn();
  engine_->wait_until_it_reads();
  const auto heartbeat = [&](int64_t now_ns) {
    turn_at(now_ns);
    wire::Heartbeat said;
    for (const Received& frame : receive()) {
      if (frame.type == wire::FrameType::kHeartbeat) {
        said = parsed<wire::Heartbeat>(frame);
      }
    }
    return said.step_ms;
  };
  const int64_t later_ns = monotonic_ns() + 70 * kNsPerSec;
  EXPECT_GE(heartbeat(later_ns), 70'000U);
  let(1);
  EXPECT_EQ(heartbeat(later_ns + 2 * kNsPerSec), 0U);
}

TEST_F(PoolAdmitTest, JobsStartAsTheyCameShortOrLong) {
  make_slow(4);
  submit(1, kLong);
  submit(2, "short");
  submit(3, kLong);
  submit(4, "short");
  turn();
  EXPECT_EQ(engine_->running, Jobs{});
  engine_->let(2);
  while (engine_->running.size() < 4) {
    turn_once_read();
  }
  EXPECT_EQ(engine_->running, (Jobs{1, 2, 3, 4}));
}

TEST_F(PoolAdmitTest, AnEmptyPoolIsWokenByWhatWasRead) {
  make_slow(1);
  submit(1, kLong);
  turn();
  EXPECT_GT(last_.wake_ns, now_ns_) << "there is nothing to do meanwhile";
  let(1);
  EXPECT_EQ(engine_->running, Jobs{1});
  engine_->end(1);
  turn();
  EXPECT_EQ(story(), "DONE 1, TAKE 1");
  pollfd read{pool_->admitted_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&read, 1, 0), 0) << "and is not woken again for nothing";
}

TEST_F(PoolAdmitTest, AJobThatIsCancelledWhileItIsReadNeverStarts) {
  make_slow(2);
  submit(1, kLong);
  submit(2, kLong);
  turn();
  engine_->wait_until_it_reads();
  cancel(1);  // being read
  cancel(2);  // behind it
  turn();
  EXPECT_EQ(story(), "TAKE 2") << "its place is free at once";
  EXPECT_EQ(pool_->waiting(), 0U);
  submit(1, kLong);  // the number is free, too
  turn();
  let(1);
  EXPECT_EQ(engine_->running, Jobs{}) << "this was the first one";
  let(1);
  EXPECT_EQ(engine_->running, Jobs{1});
  EXPECT_EQ(pool_->credit_granted(), 1U);
}

TEST_F(PoolAdmitTest, WhatIsRefusedIsToldAndItsPlaceIsFree) {
  make_slow(1);
  submit(1, "bad" + kLong);
  turn();
  let(1);
  const auto frames = receive();
  EXPECT_EQ(story(frames), "FAILED 1, TAKE 1");
  const auto failed = parsed<wire::Failed>(frames.at(0));
  EXPECT_EQ(failed.status, 400U);
  EXPECT_EQ(failed.message, "it is bad");
  EXPECT_EQ(failed.param, "prompt");
}

TEST_F(PoolAdmitTest, WhatNeedsMoreThanTheBudgetIsToldSo) {
  make_slow(1, 5);
  submit(1, kLong);
  turn();
  let(1);
  EXPECT_EQ(story(), "FAILED 1, TAKE 1");
}

TEST_F(PoolAdmitTest, MemoryIsClaimedOnceItIsKnown) {
  make_slow(1, 0, true);
  submit(1, kLong);
  turn();
  EXPECT_EQ(story(), "");
  let(1);
  EXPECT_EQ(story(), "CLAIM 1");
  EXPECT_EQ(engine_->running, Jobs{});
  std::string grant;
  wire::append(grant, 1, wire::Grant{6});
  send(grant);
  turn();
  EXPECT_EQ(engine_->running, Jobs{1});
}

TEST_F(PoolAdmitTest, ACheckIsAnsweredOnceItWasRead) {
  make_slow(1);
  check(7, "bad" + kLong);
  turn();
  EXPECT_EQ(story(), "");
  let(1);
  const auto frames = receive();
  EXPECT_EQ(story(frames), "CHECKED 7");
  EXPECT_EQ(parsed<wire::Checked>(frames.at(0)).message, "it is bad");
  submit(7, kLong);  // numbers of CHECKs are their own
  turn();
  let(1);
  EXPECT_EQ(engine_->running, Jobs{7});
}

TEST_F(PoolAdmitTest, ChecksWithoutEndTakeNoMemoryWithoutEnd) {
  make_slow(1);
  for (uint64_t i = 1; i <= 65; ++i) {
    check(i, "bad" + kLong);
    turn();
  }
  const auto frames = receive();
  ASSERT_EQ(story(frames), "CHECKED 65") << "the last may pass";
  EXPECT_EQ(parsed<wire::Checked>(frames.at(0)).status, 0U);
}

TEST_F(PoolAdmitTest, ANumberThatIsBeingReadIsInUse) {
  make_slow(2);
  submit(1, kLong);
  submit(1, kLong);
  EXPECT_EQ(turn().exit_status, 1);
}

TEST_F(PoolAdmitTest, ADrainWaitsForWhatIsBeingRead) {
  make_slow(1);
  submit(1, kLong);
  send_empty(wire::FrameType::kDrain, 0);
  EXPECT_FALSE(turn().over);
  let(1);
  EXPECT_EQ(engine_->running, Jobs{1});
  engine_->end(1);
  EXPECT_TRUE(turn().over);
}

TEST_F(PoolAdmitTest, WhatReadingThrowsComesOutOfTheTurn) {
  make_slow(1);
  submit(1, "throw" + kLong);
  turn();
  engine_->let(1);
  pollfd read{pool_->admitted_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&read, 1, 20'000), 1);
  EXPECT_THROW(turn(), std::runtime_error);
}

TEST_F(PoolAdmitTest, AnEngineThatAdmitsAtOnceHasNoSuchThread) {
  make(&PoolTest::instant);
  EXPECT_EQ(pool_->admitted_fd(), -1);
}

}  // namespace
}  // namespace penstock::test
