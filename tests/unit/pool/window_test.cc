// An answer that its reader does not keep up with.
#include <map>

#include "tests/unit/pool/pool_fixture.h"

namespace penstock::test {
namespace {

constexpr const char* kCompletions = "/v1/completions";

class WindowTest : public PoolTest {
 protected:
  static std::unique_ptr<Engine> wordy(Sink& sink) {
    return simulated(sink, {.output_tokens = 1'000'000});
  }
  void open(uint32_t slots) {
    make(wordy, slots);
    turn();
    receive();
  }
  // Turns until nothing comes any more; the bytes of each job's answer are counted.
  std::vector<Received> run() {
    std::vector<Received> all;
    for (int quiet = 0; quiet < 3;) {
      turn_at(now_ns_ + kNsPerMs);
      std::vector<Received> frames = receive();
      quiet = frames.empty() ? quiet + 1 : 0;
      for (Received& frame : frames) {
        if (frame.type == wire::FrameType::kChunk) {
          sent_[frame.id] += frame.payload.size();
        } else if (frame.type != wire::FrameType::kProgress) {
          all.push_back(std::move(frame));
        }
      }
    }
    return all;
  }
  void widen(JobNumber job, uint64_t bytes) {
    std::string out;
    wire::append(out, job, wire::Window{bytes});
    send(out);
  }

  std::map<JobNumber, uint64_t> sent_;
};

TEST_F(WindowTest, AnAnswerGoesAsFarAsItsWindowAndItsMatesGoOn) {
  open(4);
  send(submit_bytes(1, R"({"prompt":"a","max_tokens":400000})", kCompletions));
  send(submit_bytes(2, R"({"prompt":"a","max_tokens":4})", kCompletions));
  EXPECT_EQ(story(run()), "HEAD 1, HEAD 2, DONE 2, TAKE 1");
  EXPECT_EQ(sent_[1], wire::kFirstWindowBytes);
  widen(1, 1000);
  EXPECT_EQ(story(run()), "");
  EXPECT_EQ(sent_[1], wire::kFirstWindowBytes + 1000);
  widen(1, 100U << 20);
  EXPECT_EQ(story(run()), "DONE 1, TAKE 1") << "its end comes behind all of it";
  EXPECT_GT(sent_[1], 400'000U * 4);
  EXPECT_EQ(pool_->running(), 0U);
}

TEST_F(WindowTest, OfAStreamNoMoreIsMadeThanIsSent) {
  open(4);
  send(submit_bytes(1, R"({"prompt":"a","stream":true,"max_tokens":100000})", kCompletions));
  run();
  const auto all_but_an_event = [&](uint64_t window) {
    EXPECT_GE(sent_[1], window);
    EXPECT_LT(sent_[1], window + 1000) << "no event is torn";
  };
  all_but_an_event(wire::kFirstWindowBytes);
  widen(1, 1U << 20);
  run();
  all_but_an_event(wire::kFirstWindowBytes + (1U << 20));
  widen(1, 1U << 30);
  EXPECT_EQ(story(run()), "DONE 1, TAKE 1");
}

TEST_F(WindowTest, AJobThatIsCancelledWhileItWaitsForItsReaderIsGone) {
  open(1);
  send(submit_bytes(1, R"({"prompt":"a","max_tokens":400000})", kCompletions));
  run();
  cancel(1);
  EXPECT_EQ(story(run()), "TAKE 1");
  widen(1, 1U << 20);
  submit(2);
  EXPECT_EQ(story(run()), "HEAD 2, DONE 2, TAKE 1");
}

}  // namespace
}  // namespace penstock::test
