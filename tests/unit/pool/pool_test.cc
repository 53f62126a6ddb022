#include "tests/unit/pool/pool_fixture.h"

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>

namespace penstock::test {
namespace {

TEST_F(PoolTest, SaysHelloThenGrantsItsSlotsAsCredit) {
  make(instant, 4);
  turn();
  const auto frames = receive();
  ASSERT_EQ(story(frames), "HELLO 0, TAKE 4");
  const auto hello = parsed<wire::Hello>(frames[0]);
  EXPECT_EQ(hello.version, wire::kVersion);
  EXPECT_EQ(hello.role, static_cast<uint64_t>(wire::Role::kWorker));
  EXPECT_EQ(hello.name, "w");
  EXPECT_EQ(hello.model, "sim");
  EXPECT_EQ(hello.slots, 4U);
}

TEST_F(PoolTest, AJobIsAnsweredAndItsCreditComesBackInTheSameTurn) {
  make(instant, 4);
  turn();
  receive();
  send(submit_bytes(7) + submit_bytes(8));
  turn();
  EXPECT_EQ(story(), "HEAD 7, CHUNK 7, DONE 7, HEAD 8, CHUNK 8, DONE 8, TAKE 2");
  EXPECT_TRUE(last_.took) << "the next job is not far";
  EXPECT_FALSE(turn().took);
}

TEST_F(PoolTest, ARefusedJobFailsAndItsCreditComesBack) {
  make(instant, 4);
  turn();
  receive();
  send(submit_bytes(7, R"({"prompt":5})", "/v1/completions"));
  turn();
  const auto frames = receive();
  ASSERT_EQ(story(frames), "FAILED 7, TAKE 1");
  const auto failed = parsed<wire::Failed>(frames[0]);
  EXPECT_EQ(failed.status, 400U);
  EXPECT_EQ(failed.code, "invalid_request");
  EXPECT_EQ(failed.param, "prompt");
  EXPECT_EQ(failed.message, "prompt must be a string, not a number.");
  EXPECT_EQ(failed.retryable, 0U);
}

TEST_F(PoolTest, AnOverrideReachesTheEngineAndDoneSaysWhatWasUsed) {
  make(ten_ms, 4);
  turn();
  receive();
  wire::Submit submit{.method = "POST",
                      .path = "/v1/completions",
                      .override = R"({"max_tokens":3})",
                      .body = R"({"prompt":"eight by","max_tokens":9})"};
  std::string bytes;
  wire::append(bytes, 7, submit);
  send(bytes);
  turn();
  turn_at(now_ns_ + 10 * kNsPerMs);
  const auto frames = receive();
  ASSERT_EQ(story(frames), "HEAD 7, CHUNK 7, DONE 7, TAKE 1");
  const auto done = parsed<wire::Done>(frames[2]);
  EXPECT_EQ(done.prompt_tokens, 2U);
  EXPECT_EQ(done.completion_tokens, 3U);
  EXPECT_EQ(done.device_ns, 10U * kNsPerMs);
}

TEST_F(PoolTest, AFrameMayArriveByteByByte) {
  make(instant);
  turn();
  receive();
  const std::string bytes = submit_bytes(7);
  for (const char byte : bytes.substr(0, bytes.size() - 1)) {
    send({&byte, 1});
    turn();
  }
  EXPECT_EQ(story(), "");
  send({&bytes.back(), 1});
  turn();
  EXPECT_EQ(story(), "HEAD 7, CHUNK 7, DONE 7, TAKE 1");
}

TEST_F(PoolTest, ABodyLargerThanTheBufferArrivesWhole) {
  make(instant);
  turn();
  receive();
  const std::string bytes = submit_bytes(7, std::string(3 << 20, 'x')) + submit_bytes(8);
  for (size_t at = 0; at < bytes.size(); at += 50'000) {
    send(std::string_view(bytes).substr(at, 50'000));
    turn();
  }
  turn();  // the big frame's buffer ended before the second frame did
  EXPECT_EQ(story(), "HEAD 7, CHUNK 7, DONE 7, TAKE 1, HEAD 8, CHUNK 8, DONE 8, TAKE 1");
}

TEST_F(PoolTest, WakesWhenTheEngineIsDue) {
  make(ten_ms);
  turn();
  submit(7);
  EXPECT_EQ(turn().wake_ns, now_ns_ + 10 * kNsPerMs);
  receive();
  turn_at(last_.wake_ns);
  EXPECT_EQ(story(), "HEAD 7, CHUNK 7, DONE 7, TAKE 1");
}

TEST_F(PoolTest, CancelFreesTheSlotWithinOneTurnAndNothingIsAnswered) {
  make(ten_ms, 2);
  turn();
  receive();
  send(submit_bytes(7) + submit_bytes(8));
  turn();
  EXPECT_EQ(pool_->running(), 2U);
  cancel(7);
  turn();
  EXPECT_EQ(pool_->running(), 1U);
  EXPECT_EQ(story(), "TAKE 1");
  submit(9);
  turn_at(now_ns_ + 10 * kNsPerMs);
  EXPECT_EQ(story(), "HEAD 8, CHUNK 8, DONE 8, TAKE 1");
}

TEST_F(PoolTest, CancelOfAJobThatJustEndedIsIgnored) {
  make(instant, 2);
  turn();
  submit(7);
  turn();
  receive();
  cancel(7);
  cancel(12345);
  EXPECT_FALSE(turn().over);
  EXPECT_EQ(story(), "");
  EXPECT_EQ(pool_->credit_granted(), 2U);
}

TEST_F(PoolTest, SubmitAndCancelInOneReadCostNothing) {
  make(ten_ms, 2);
  turn();
  receive();
  std::string both = submit_bytes(7);
  wire::append_empty(both, wire::FrameType::kCancel, 7);
  send(both);
  turn();
  EXPECT_EQ(story(), "TAKE 1");
  EXPECT_EQ(pool_->running() + pool_->waiting(), 0U);
}

TEST_F(PoolTest, HeartbeatsEachSecondWhetherIdleOrBusy) {
  make(ten_ms, 2);
  const auto heartbeats = [&] {
    const auto frames = receive();
    return std::count_if(frames.begin(), frames.end(), [](const Received& frame) {
      return frame.type == wire::FrameType::kHeartbeat;
    });
  };
  turn();
  EXPECT_EQ(heartbeats(), 1);
  EXPECT_EQ(last_.wake_ns, now_ns_ + kNsPerSec) << "an idle worker wakes for it";
  turn_at(now_ns_ + kNsPerSec - 1);
  EXPECT_EQ(heartbeats(), 0);
  turn_at(now_ns_ + 1);
  EXPECT_EQ(heartbeats(), 1);
  int busy = 0;
  for (JobNumber job = 1; job <= 500; ++job) {  // five seconds of jobs of 10 ms
    submit(job);
    turn();
    turn_at(now_ns_ + 10 * kNsPerMs);
    busy += static_cast<int>(heartbeats());
  }
  EXPECT_EQ(busy, 5);
}

TEST_F(PoolTest, AHeartbeatTellsWhatRuns) {
  make([](Sink& sink) {
    return simulated(sink, {.service_time_ns = 10 * kNsPerSec, .job_memory_bytes = 5 << 20});
  });
  turn();
  send(submit_bytes(7) + submit_bytes(8));
  turn();
  receive();
  turn_at(now_ns_ + kNsPerSec);
  for (const Received& frame : receive()) {
    if (frame.type == wire::FrameType::kHeartbeat) {
      EXPECT_EQ(parsed<wire::Heartbeat>(frame).running, 2U);
      EXPECT_EQ(parsed<wire::Heartbeat>(frame).memory_bytes, 10U << 20);
      return;
    }
  }
  FAIL() << "no heartbeat";
}

TEST_F(PoolTest, AHeartbeatTellsWhatTheEngineHasDoneAndHowManyWaitForMemory) {
  make(
      [](Sink& sink) {
        return simulated(sink, {.service_time_ns = 2 * kNsPerSec, .job_memory_bytes = 5 << 20});
      },
      4, 5 << 20);
  const auto heartbeat = [&] {
    for (const Received& frame : receive()) {
      if (frame.type == wire::FrameType::kHeartbeat) {
        return parsed<wire::Heartbeat>(frame);
      }
    }
    ADD_FAILURE() << "no heartbeat";
    return wire::Heartbeat{};
  };
  turn();
  receive();
  const std::string body = R"({"model":"sim","prompt":"eight by","max_tokens":7})";
  send(submit_bytes(7, body, "/v1/completions") + submit_bytes(8, body, "/v1/completions"));
  turn();
  turn_at(now_ns_ + kNsPerSec);
  const wire::Heartbeat first = heartbeat();
  EXPECT_EQ(first.running, 1U);
  EXPECT_EQ(first.waiting, 1U);
  EXPECT_EQ(first.prompt_tokens, 2U);
  EXPECT_EQ(first.generation_tokens, 0U);
  turn_at(now_ns_ + kNsPerSec);
  const wire::Heartbeat second = heartbeat();
  EXPECT_EQ(second.waiting, 0U);
  EXPECT_EQ(second.generation_tokens, 7U);
}

TEST_F(PoolTest, EofCancelsEverythingAndExitsWith0) {
  make(ten_ms);
  turn();
  submit(7);
  turn();
  peer_.reset();
  EXPECT_TRUE(turn().over);
  EXPECT_EQ(last_.exit_status, 0);
  EXPECT_EQ(pool_->running(), 0U);
}

TEST_F(PoolTest, DrainFinishesWhatRunsThenExits) {
  make(ten_ms, 1);
  turn();
  receive();
  submit(7);
  send_empty(wire::FrameType::kDrain, 0);
  EXPECT_FALSE(turn().over);
  turn_at(now_ns_ + 10 * kNsPerMs);
  EXPECT_TRUE(last_.over);
  EXPECT_EQ(last_.exit_status, 0);
  EXPECT_EQ(story(), "HEAD 7, CHUNK 7, DONE 7, TAKE 1") << "penstockd counts what it still uses";
}

TEST_F(PoolTest, DrainOfAnIdleWorkerEndsIt) {
  make(instant);
  turn();
  pool_->drain();  // as TERM does
  EXPECT_TRUE(turn().over);
}

TEST_F(PoolTest, DrainStillRunsAJobThatWasOnItsWay) {
  make(ten_ms, 2);
  turn();
  receive();
  submit(7);
  turn();
  pool_->drain();
  submit(8);
  EXPECT_FALSE(turn().over);
  turn_at(now_ns_ + 10 * kNsPerMs);
  EXPECT_EQ(story(), "HEAD 7, CHUNK 7, DONE 7, HEAD 8, CHUNK 8, DONE 8");
  EXPECT_TRUE(last_.over);
}

TEST_F(PoolTest, GoodbyeIsPassedOnToTheOperator) {
  make(instant);
  turn();
  std::string bytes;
  wire::append(bytes, 0, wire::Goodbye{"heartbeat missed"});
  send(bytes);
  EXPECT_FALSE(turn().over);
  peer_.reset();
  EXPECT_TRUE(turn().over);
  EXPECT_EQ(last_.message, "penstockd said: heartbeat missed");
}

TEST_F(PoolTest, OneThatAnOperatorHasDrainedEndsWithAStatusOfItsOwn) {
  make(instant);
  turn();
  std::string bytes;
  wire::append(bytes, 0, wire::Goodbye{.message = "drained", .drained = 1});
  wire::append_empty(bytes, wire::FrameType::kDrain, 0);
  send(bytes);
  EXPECT_TRUE(turn().over);
  EXPECT_EQ(last_.exit_status, Pool::kExitDrained);
  EXPECT_EQ(last_.message, "penstockd said: drained");
}

struct Hostile {
  const char* bytes_of;
  std::string bytes;
  std::string rule;
};

TEST_F(PoolTest, HostileFramesEndTheWorkerWithTheRuleThatWasBroken) {
  std::string hello;
  wire::append(hello, 0, wire::Hello{wire::kVersion, 1, "", "", 0});
  std::string reserved = submit_bytes(1);
  reserved[6] = 1;
  std::string unknown = submit_bytes(1);
  unknown[4] = 99;
  std::string huge = submit_bytes(1);
  huge.replace(0, 4, "\xff\xff\xff\xff");
  std::string fields = submit_bytes(1);
  fields[20] = '\x70';
  const Hostile table[] = {
      {"a HELLO", hello, "a frame of this type is not sent to a worker"},
      {"id 0", submit_bytes(0), "a SUBMIT with id 0"},
      {"the same id", submit_bytes(5) + submit_bytes(5), "a SUBMIT with an id in use"},
      {"too many", submit_bytes(1) + submit_bytes(2) + submit_bytes(3), "a SUBMIT without credit"},
      {"reserved bytes", reserved, "reserved bytes are not zero"},
      {"unknown type", unknown, "unknown frame type"},
      {"4 GiB", huge, "payload over its limit"},
      {"a field too long", fields, "field size past the end of the payload"},
      {"junk", std::string(64, 'x'), "reserved bytes are not zero"},
  };
  for (const Hostile& row : table) {
    make(ten_ms, 2);
    turn();
    receive();
    send(row.bytes);
    EXPECT_TRUE(turn().over) << row.bytes_of;
    EXPECT_EQ(last_.exit_status, 1) << row.bytes_of;
    EXPECT_EQ(last_.message, "penstockd broke the protocol: " + row.rule) << row.bytes_of;
    EXPECT_EQ(pool_->running(), 0U) << row.bytes_of;
    EXPECT_EQ(story(), "GOODBYE 0") << row.bytes_of;
  }
}

// Random submits, cancels and clock steps: at no time do more than `slots` jobs run, and credit is
// neither lost nor made up.
TEST_F(PoolTest, SlotsAndCreditHoldOverRandomTraffic) {
  constexpr uint32_t kSlots = 5;
  make(
      [](Sink& sink) {
        return simulated(sink, {.service_time_ns = 3 * kNsPerMs,
                                .distribution = simulate::Distribution::kExponential,
                                .failure_rate = 0.1,
                                .job_memory_bytes = 10});
      },
      kSlots, 35);  // memory for three of the five
  std::mt19937 random(11);
  std::set<JobNumber> open;
  uint64_t credit = 0;
  uint64_t answered = 0;
  JobNumber next = 1;
  for (int round = 0; round < 20'000; ++round) {
    turn_at(now_ns_ + random() % kNsPerMs);
    ASSERT_FALSE(last_.over) << last_.message;
    for (const Received& frame : receive()) {
      credit += frame.type == wire::FrameType::kTake ? credit_of(frame) : 0;
      if (frame.type == wire::FrameType::kDone || frame.type == wire::FrameType::kFailed) {
        ASSERT_EQ(open.erase(frame.id), 1U) << "an answer to a job nobody has";
        ++answered;
      }
    }
    ASSERT_LE(pool_->running(), 3U);
    ASSERT_LE(pool_->memory_in_use(), 35);
    ASSERT_EQ(pool_->memory_in_use(), 10 * pool_->running());
    ASSERT_EQ(pool_->running() + pool_->waiting(), open.size());
    ASSERT_EQ(credit + open.size(), kSlots);
    while (credit > 0 && random() % 3 != 0) {
      submit(next);
      open.insert(next++);
      --credit;
    }
    if (!open.empty() && random() % 4 == 0) {
      const JobNumber job = *std::next(open.begin(), random() % open.size());
      cancel(job);
      open.erase(job);
    }
  }
  EXPECT_GT(answered, 5000U);
}

TEST_F(PoolTest, ACheckIsAnsweredByWhatTheEngineHasAgainstIt) {
  make(ten_ms, 1);
  turn();
  EXPECT_EQ(parsed<wire::Hello>(receive().at(0)).checks,
            static_cast<uint64_t>(wire::Checking::kCompletions));
  check(1, R"({"prompt":"x"})");
  check(2, R"({"prompt":"x","n":2})");
  check(3, "anything", "/other");
  turn();
  const auto frames = receive();
  EXPECT_EQ(story(frames), "CHECKED 1, CHECKED 2, CHECKED 3");
  EXPECT_EQ(parsed<wire::Checked>(frames[0]).status, 0U);
  const auto refused = parsed<wire::Checked>(frames[1]);
  EXPECT_EQ(refused.status, 400U);
  EXPECT_EQ(refused.code, "invalid_request");
  EXPECT_EQ(refused.param, "n");
  EXPECT_NE(refused.message, "");
  EXPECT_EQ(parsed<wire::Checked>(frames[2]).status, 0U);
}

TEST_F(PoolTest, ACheckTakesNeitherSlotNorCreditAndItsNumberIsNoJobs) {
  make(ten_ms, 1);
  turn();
  submit(7);
  check(7, R"({"prompt":"x"})");
  turn();
  EXPECT_EQ(story(), "HELLO 0, TAKE 1, CHECKED 7");
  EXPECT_EQ(pool_->running(), 1U);
  EXPECT_EQ(pool_->waiting(), 0U);
  turn_at(now_ns_ + 10 * kNsPerMs);
  EXPECT_EQ(story(), "HEAD 7, CHUNK 7, DONE 7, TAKE 1");
}

// Steps as a long one of a large model.
class SlowEngine final : public Engine {
 public:
  explicit SlowEngine(std::function<void()> in_step) : in_step_(std::move(in_step)) {}
  std::variant<std::unique_ptr<Plan>, Failure> admit(const Request&) override {
    return std::make_unique<Plan>();
  }
  void start(JobNumber, std::unique_ptr<Plan>) override {}
  int64_t step(int64_t now_ns) override {
    in_step_();
    return now_ns;
  }
  bool cancel(JobNumber) override { return true; }
  std::string chat() const override { return "chat is refused: it has none"; }

 private:
  std::function<void()> in_step_;
};

TEST_F(PoolTest, HelloSaysHowTheEngineTakesChats) {
  open_link();
  start_pool(std::make_unique<SlowEngine>([] {}), 1);
  turn();
  const auto frames = receive();
  EXPECT_EQ(parsed<wire::Hello>(frames.at(0)).chat, "chat is refused: it has none");
}

TEST_F(PoolTest, ACheckDoesNotWaitForTheEnginesStep) {
  std::string seen_in_step;
  open_link();
  start_pool(std::make_unique<SlowEngine>([&] { seen_in_step = story(); }), 1);
  turn();
  submit(1);
  turn();
  receive();
  check(2, "x");
  turn();
  EXPECT_EQ(seen_in_step, "CHECKED 2");
}

TEST_F(PoolTest, ACheckOfWhatNeedsMoreMemoryThanThereIsSaysSo) {
  make([](Sink& sink) { return simulated(sink, {.job_memory_bytes = 2 << 20}); }, 1, 1 << 20);
  turn();
  receive();
  check(1, R"({"prompt":"x"})");
  turn();
  EXPECT_EQ(parsed<wire::Checked>(receive().at(0)).status, 400U);
}

}  // namespace
}  // namespace penstock::test
