// What a job holds on the device, and what it makes: engines that are told exactly how much.
#include "tests/unit/pool/pool_fixture.h"

namespace penstock::test {
namespace {

// A job's body is "MEMORY": what its plan asks for.
class ScriptedEngine final : public EndlessEngine {
 public:
  using EndlessEngine::EndlessEngine;

  std::variant<std::unique_ptr<Plan>, Failure> admit(const Request& request) override {
    auto plan = std::make_unique<Plan>();
    plan->memory_bytes = std::stoll(std::string(request.body));
    return plan;
  }
  int64_t step(int64_t now_ns) override {
    if (output_per_step > 0) {
      sink_.chunk(running.front(), std::string(output_per_step, 'x'));
    }
    return EndlessEngine::step(now_ns);
  }

  size_t output_per_step = 0;
};

class PoolMemoryTest : public PoolTest {
 protected:
  // Job 1 answers, and its reader takes whatever comes.
  void begin_wide() {
    engine_->output_per_step = 1;
    submit(1, "5");
    turn();
    std::string window;
    wire::append(window, 1, wire::Window{64U << 20});
    send(window);
  }
  void make_scripted(uint32_t slots, int64_t memory_bytes, bool claims_memory = false) {
    open_link();
    auto engine = std::make_unique<ScriptedEngine>(*sink_);
    engine_ = engine.get();
    start_pool(std::move(engine), slots, memory_bytes, claims_memory);
    turn();
    receive();
  }
  void grant(JobNumber job, uint64_t bytes) {
    std::string out;
    wire::append(out, job, wire::Grant{bytes});
    send(out);
  }
  std::string running() const {
    std::string out;
    for (const JobNumber job : engine_->running) {
      out += std::to_string(job) + " ";
    }
    return out;
  }

  ScriptedEngine* engine_ = nullptr;
};

TEST_F(PoolMemoryTest, AJobWaitsUntilItsMemoryIsFree) {
  make_scripted(4, 100);
  send(submit_bytes(1, "60") + submit_bytes(2, "50"));
  turn();
  EXPECT_EQ(running(), "1 ");
  EXPECT_EQ(pool_->waiting(), 1U);
  EXPECT_EQ(story(), "") << "a waiting job is not answered, its credit is not returned";
  engine_->end(1);
  turn();
  EXPECT_EQ(running(), "2 ");
  EXPECT_EQ(story(), "DONE 1, TAKE 1");
}

TEST_F(PoolMemoryTest, WhereOthersShareTheDeviceEachJobAsksForItsMemory) {
  make_scripted(4, 100, true);
  send(submit_bytes(1, "60") + submit_bytes(2, "50") + submit_bytes(3, "0"));
  turn();
  EXPECT_EQ(running(), "3 ") << "it needs none";
  const auto frames = receive();
  ASSERT_EQ(story(frames), "CLAIM 1, CLAIM 2");
  EXPECT_EQ(parsed<wire::Claim>(frames[1]).memory_bytes, 50U);
  grant(2, 50);  // penstockd knows what is free, and who is next
  turn();
  EXPECT_EQ(running(), "3 2 ");
  engine_->end(2);
  turn();
  const auto ended = receive();
  ASSERT_EQ(story(ended), "DONE 2, TAKE 1");
  EXPECT_EQ(parsed<wire::Take>(ended[1]).memory_bytes, 50U);
}

TEST_F(PoolMemoryTest, WhatWasGrantedToACancelledJobIsGivenBack) {
  make_scripted(4, 100, true);
  send(submit_bytes(1, "60") + submit_bytes(2, "30"));
  turn();
  receive();
  grant(1, 60);
  turn();
  cancel(1);  // running
  cancel(2);  // waiting
  turn();
  auto frames = receive();
  ASSERT_EQ(story(frames), "TAKE 2");
  EXPECT_EQ(parsed<wire::Take>(frames[0]).memory_bytes, 60U);
  grant(2, 30);  // crossed the cancel
  turn();
  frames = receive();
  ASSERT_EQ(story(frames), "TAKE 0");
  EXPECT_EQ(parsed<wire::Take>(frames[0]).memory_bytes, 30U);
  EXPECT_EQ(running(), "");
}

TEST_F(PoolMemoryTest, WaitingJobsStartInOrder) {
  make_scripted(4, 100);
  send(submit_bytes(1, "60") + submit_bytes(2, "50") + submit_bytes(3, "1"));
  turn();
  EXPECT_EQ(running(), "1 ") << "the small one does not overtake";
  engine_->end(1);
  turn();
  EXPECT_EQ(running(), "2 3 ");
}

TEST_F(PoolMemoryTest, CancelOfTheOneInFrontLetsTheNextStart) {
  make_scripted(4, 100);
  send(submit_bytes(1, "60") + submit_bytes(2, "50") + submit_bytes(3, "40"));
  turn();
  cancel(2);
  turn();
  EXPECT_EQ(running(), "1 3 ");
  EXPECT_EQ(story(), "TAKE 1");
  EXPECT_EQ(pool_->memory_in_use(), 100);
}

TEST_F(PoolMemoryTest, AJobThatCouldNeverFitIsRefused) {
  make_scripted(4, 100 << 20);
  send(submit_bytes(1, std::to_string((100 << 20) + 1)));
  turn();
  const auto frames = receive();
  ASSERT_EQ(story(frames), "FAILED 1, TAKE 1");
  EXPECT_EQ(parsed<wire::Failed>(frames[0]).status, 400U);
  EXPECT_EQ(
      parsed<wire::Failed>(frames[0]).message,
      "The job needs 101 MiB on the device and its budget is 100 MiB. Ask for fewer tokens or "
      "send a shorter prompt.");
}

TEST_F(PoolMemoryTest, WithoutABudgetOnlySlotsBind) {
  make_scripted(2, 0);
  send(submit_bytes(1, "9000000000000000000") + submit_bytes(2, "5"));
  turn();
  EXPECT_EQ(running(), "1 2 ");
}

TEST_F(PoolMemoryTest, TheEngineRestsWhileTooMuchIsUnsent) {
  make_scripted(1, 0);
  begin_wide();
  engine_->output_per_step = 20U << 20;  // one step may pass the bound, no second one does
  turn();
  EXPECT_EQ(engine_->steps, 2);
  for (int i = 0; i < 5; ++i) {
    turn();
  }
  EXPECT_EQ(engine_->steps, 2);
  EXPECT_TRUE(last_.wants_write);
  EXPECT_GT(last_.wake_ns, now_ns_) << "it sleeps until penstockd reads";

  engine_->output_per_step = 0;
  size_t bytes = 0;
  for (int i = 0; i < 1000 && engine_->steps == 2; ++i) {
    for (const Received& frame : receive()) {
      bytes += frame.payload.size();
    }
    turn();
  }
  EXPECT_EQ(engine_->steps, 3);
  EXPECT_GE(bytes, 11U << 20);
  EXPECT_LT(bytes, 20U << 20) << "it goes on before the last byte has left";
}

TEST_F(PoolMemoryTest, HeartbeatsDoNotPileUpForAPeerThatDoesNotRead) {
  make_scripted(1, 0);
  begin_wide();
  engine_->output_per_step = 9U << 20;
  turn();
  turn();
  const size_t unsent = link_->unsent_bytes();
  ASSERT_GT(unsent, 8U << 20);
  for (int i = 0; i < 100; ++i) {
    turn_at(now_ns_ + kNsPerSec);
  }
  EXPECT_EQ(link_->unsent_bytes(), unsent);
}

TEST_F(PoolMemoryTest, CancelIsHeardWhileTheEngineRests) {
  make_scripted(1, 0);
  engine_->output_per_step = 20U << 20;
  submit(1, "5");
  turn();
  cancel(1);
  turn();
  EXPECT_EQ(running(), "");
}

}  // namespace
}  // namespace penstock::test
