#include "worker/pool/pulse.h"

#include <poll.h>

#include <string>

#include "tests/unit/pool/pool_fixture.h"

namespace penstock::test {
namespace {

class PulseTest : public PoolTest {
 protected:
  // The next frame; waits for it.
  Received next() {
    for (;;) {
      if (auto frames = receive(); !frames.empty()) {
        return frames.front();
      }
      pollfd ready{peer_.get(), POLLIN, 0};
      EXPECT_EQ(::poll(&ready, 1, 20'000), 1) << "nothing comes";
    }
  }
};

TEST_F(PulseTest, ALongStepIsToldOfWhileItLasts) {
  open_link();
  Pulse pulse(*link_, kNsPerMs);
  pulse.begin(monotonic_ns() - 5 * kNsPerSec, {.running = 3, .generation_tokens = 7});
  const auto heartbeat = parsed<wire::Heartbeat>(next());
  EXPECT_GE(heartbeat.step_ms, 5000U);
  EXPECT_EQ(heartbeat.running, 3U) << "the rest is as was said last";
  EXPECT_EQ(heartbeat.generation_tokens, 7U);
}

TEST_F(PulseTest, TheLongerOfAStepAndAReadingIsTold) {
  open_link();
  Pulse pulse(*link_, kNsPerMs);
  pulse.begin(monotonic_ns() - kNsPerSec, {.step_ms = 70'000});
  EXPECT_EQ(parsed<wire::Heartbeat>(next()).step_ms, 70'000U);
}

TEST_F(PulseTest, WhatIsSaidBesideNeverCutsAFrameThatIsUnderWay) {
  open_link();
  std::string chunk;
  wire::append_chunk(chunk, 1, std::string(1 << 20, 'x'));
  link_->out() = chunk;
  ASSERT_TRUE(link_->flush());
  ASSERT_GT(link_->unsent_bytes(), 0U) << "the socket took it all";
  std::string beat;
  wire::append(beat, 0, wire::Heartbeat{.running = 1});
  size_t bytes = 0;
  size_t beats = 0;
  while (bytes < (1 << 20) || beats == 0) {
    for (const Received& frame : receive()) {  // which fails where a frame is cut
      bytes += frame.type == wire::FrameType::kChunk ? frame.payload.size() : 0;
      beats += frame.type == wire::FrameType::kHeartbeat ? 1 : 0;
    }
    link_->send_beside(beat);
  }
  EXPECT_EQ(bytes, size_t{1} << 20);
}

}  // namespace
}  // namespace penstock::test
