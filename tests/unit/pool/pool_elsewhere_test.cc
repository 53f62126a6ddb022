// Engines whose jobs run elsewhere: they are woken, close their slots, and let go of jobs late.
#include <deque>

#include "tests/unit/pool/pool_fixture.h"

namespace penstock::test {
namespace {

class ElsewhereEngine final : public Engine {
 public:
  explicit ElsewhereEngine(Sink& sink) : sink_(sink) {}

  std::variant<std::unique_ptr<Plan>, Failure> admit(const Request&) override {
    auto plan = std::make_unique<Plan>();
    plan->memory_bytes = 6;
    return plan;
  }
  void start(JobNumber job, std::unique_ptr<Plan>) override { running.push_back(job); }
  int64_t step(int64_t) override {
    ++steps;
    for (; !closing.empty(); closing.pop_front()) {
      sink_.open(closing.front());
    }
    for (; !returned.empty(); returned.pop_front()) {
      std::erase(running, returned.front());
      sink_.failed(returned.front(),
                   {.status = 503, .code = "busy", .message = "no room", .returned = true});
    }
    for (; !leaving.empty(); leaving.pop_front()) {
      sink_.left(leaving.front());
    }
    return kIdle;
  }
  int wake_fd() const override { return 0; }
  bool cancel(JobNumber job) override {
    std::erase(running, job);
    return false;
  }

  std::deque<JobNumber> running;
  std::deque<Opening> closing;     // told with the next step
  std::deque<JobNumber> returned;  // likewise, behind that
  std::deque<JobNumber> leaving;   // likewise
  int steps = 0;

  // As libcurl does, it may have more to say at once when it is resumed.
  void pause(JobNumber) override { paused = true; }
  void resume(JobNumber job) override {
    paused = false;
    sink_.chunk(job, std::exchange(on_resume, {}));
  }
  void say(JobNumber job, std::string_view bytes) { sink_.chunk(job, bytes); }
  std::string on_resume;
  bool paused = false;

 private:
  Sink& sink_;
};

class PoolElsewhereTest : public PoolTest {
 protected:
  void make_elsewhere(uint32_t slots, int64_t memory_bytes = 0) {
    open_link();
    auto engine = std::make_unique<ElsewhereEngine>(*sink_);
    engine_ = engine.get();
    start_pool(std::move(engine), slots, memory_bytes);
  }
  ElsewhereEngine* engine_ = nullptr;
};

TEST_F(PoolElsewhereTest, TheEngineIsSteppedWhenItIsWokenThoughNothingRuns) {
  make_elsewhere(1);
  turn();
  const int before = engine_->steps;
  EXPECT_GT(before, 0) << "once, to begin with";
  turn();
  EXPECT_EQ(engine_->steps, before);
  pool_->turn(now_ns_, {.engine = true});
  EXPECT_EQ(engine_->steps, before + 1);
}

TEST_F(PoolElsewhereTest, TheSocketIsReadWhenItIsReady) {
  make_elsewhere(1);
  turn();
  submit(1);
  pool_->turn(now_ns_, {.socket = false, .engine = true});
  EXPECT_TRUE(engine_->running.empty());
  turn();
  EXPECT_EQ(engine_->running.size(), 1U);
}

TEST_F(PoolElsewhereTest, SlotsAreClosedBeforeAnyCreditIsGiven) {
  make_elsewhere(2);
  engine_->closing.push_back({.out = true, .why = "connection refused"});
  turn();
  EXPECT_EQ(story(), "HELLO 0, SLOTS 0, TAKE 2");
}

TEST_F(PoolElsewhereTest, AJobThatIsReturnedComesBehindTheSlotsThatAreClosed) {
  make_elsewhere(1);
  turn();
  submit(7);
  turn();
  receive();
  engine_->closing.push_back({.retry_ms = 250, .why = "429"});
  engine_->returned.push_back(7);
  pool_->turn(now_ns_, {.engine = true});
  const auto frames = receive();
  EXPECT_EQ(story(frames), "SLOTS 0, FAILED 7, TAKE 1");
  EXPECT_EQ(parsed<wire::Slots>(frames.at(0)).retry_ms, 250U);
  EXPECT_EQ(parsed<wire::Failed>(frames.at(1)).returned, 1U);
}

TEST_F(PoolElsewhereTest, AJobThatLeavesLateHoldsItsSlotAndItsMemoryUntilThen) {
  make_elsewhere(2, 10);
  turn();
  submit(1);
  submit(2);
  turn();
  ASSERT_EQ(engine_->running.size(), 1U) << "there is memory for one";
  cancel(1);
  turn();
  EXPECT_EQ(engine_->running.size(), 0U);
  EXPECT_EQ(pool_->memory_in_use(), 6);
  EXPECT_EQ(pool_->waiting(), 1U);
  receive();
  engine_->leaving.push_back(1);
  pool_->turn(now_ns_, {.engine = true});
  EXPECT_EQ(engine_->running.size(), 1U);
  EXPECT_EQ(story(), "TAKE 1");
}

TEST_F(PoolElsewhereTest, WhatItSaysAsItIsResumedDoesNotPauseItForEver) {
  make_elsewhere(1);
  turn();
  submit(1);
  turn();
  const std::string window(wire::kFirstWindowBytes, 'x');
  engine_->say(1, window);
  turn();
  ASSERT_TRUE(engine_->paused);
  receive();
  engine_->on_resume = window;
  std::string twice;
  wire::append(twice, 1, wire::Window{wire::kFirstWindowBytes});
  wire::append(twice, 1, wire::Window{wire::kFirstWindowBytes});
  send(twice);
  turn();
  EXPECT_FALSE(engine_->paused) << "the second of them has opened the window again";
}

TEST_F(PoolElsewhereTest, AJobThatNeverWasLeavesNothing) {
  make_elsewhere(1);
  turn();
  engine_->leaving.push_back(99);
  pool_->turn(now_ns_, {.engine = true});
  EXPECT_EQ(pool_->credit_granted(), 1U);
}

}  // namespace
}  // namespace penstock::test
