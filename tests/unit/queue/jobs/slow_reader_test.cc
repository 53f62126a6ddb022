// An answer that is not read as fast as it is made.
#include "session_fixture.h"

namespace penstock::queue {
namespace {

using wire::FrameType;

class SlowReaderTest : public SessionTest {
 protected:
  static constexpr size_t kChunk = 60'000;

  SlowReaderTest() {
    config_.limits.max_unsent_bytes = 200'000;
    apply();
  }
  uint64_t start(Peer& device, Peer& peer, uint64_t id) {
    peer.send(id, post());
    turn();
    const auto job = device.next();
    EXPECT_TRUE(job && job->type == FrameType::kSubmit);
    device.send(job->id, wire::Head{200, "text/plain"});
    return job->id;
  }
  // So much of the answer, as the worker would send it.
  void say(Peer& device, uint64_t number, size_t bytes) {
    for (size_t said = 0; said < bytes; said += kChunk) {
      std::string chunk;
      wire::append_chunk(chunk, number, std::string(std::min(kChunk, bytes - said), 'x'));
      device.send_bytes(chunk);
      turn();
    }
  }
  // What the worker is asked for.
  static uint64_t asked(Peer& device, uint64_t number) {
    uint64_t bytes = 0;
    while (const auto frame = device.next()) {
      EXPECT_EQ(frame->type, FrameType::kWindow);
      EXPECT_EQ(frame->id, number);
      bytes += frame->as<wire::Window>().bytes;
    }
    return bytes;
  }
  // Reads all there is.
  size_t read(Peer& peer) {
    size_t bytes = 0;
    for (int quiet = 0; quiet < 2; ++quiet) {
      while (const auto frame = peer.next()) {
        bytes += frame->type == FrameType::kChunk ? frame->payload.size() : 0;
        last_ = frame;
        quiet = 0;
      }
      turn();
    }
    return bytes;
  }

  std::optional<Peer::Received> last_;
};

TEST_F(SlowReaderTest, AnswersThatAreReadNeedNoWindowUnlessTheyAreLarge) {
  Peer device = worker(1);
  Peer peer = caller();
  const uint64_t number = start(device, peer, 1);
  say(device, number, 500'000);
  read(peer);
  EXPECT_EQ(asked(device, number), 0U);
  say(device, number, 100'000);
  EXPECT_EQ(asked(device, number), 560'000U) << "of a window more than half has been read";
}

TEST_F(SlowReaderTest, TheWorkerWaitsForAReaderWhoThenGetsAllOfIt) {
  Peer device = worker(1);
  Peer peer = caller();
  const uint64_t number = start(device, peer, 1);
  say(device, number, wire::kFirstWindowBytes);
  EXPECT_EQ(asked(device, number), 0U) << "there is enough to read";
  EXPECT_EQ(read(peer), wire::kFirstWindowBytes);
  EXPECT_EQ(asked(device, number), wire::kFirstWindowBytes);
  say(device, number, 100);
  device.send(number, wire::Done{});
  turn();
  EXPECT_EQ(read(peer), 100U);
  EXPECT_EQ(last_->type, FrameType::kDone);
}

TEST_F(SlowReaderTest, OfTwoWhoShareAnAnswerTheFasterSetsThePace) {
  Peer device = worker(1);
  Peer slow = caller();
  Peer fast = caller();
  wire::Submit same = post();
  same.dedupe = 1;
  slow.send(1, same);
  turn();
  const uint64_t number = device.next()->id;
  fast.send(2, same);
  turn();
  device.send(number, wire::Head{200, "text/plain"});
  size_t got = 0;
  for (int i = 0; i < 40; ++i) {
    say(device, number, 100'000);
    got += read(fast);
  }
  EXPECT_EQ(got, 40 * 100'000U);
  EXPECT_GT(asked(device, number), 3'000'000U);
  read(slow);
  EXPECT_EQ(last_->type, FrameType::kFailed) << "it fell too far behind";
  EXPECT_EQ(dispatcher_.jobs(), 1U) << "the job goes on";
}

TEST_F(SlowReaderTest, WhoReadsNothingForLongIsToldAndTheJobEnds) {
  Peer device = worker(1);
  Peer peer = caller();
  const uint64_t number = start(device, peer, 1);
  say(device, number, wire::kFirstWindowBytes);
  advance(59 * kNsPerSec);
  EXPECT_EQ(dispatcher_.jobs(), 1U);
  advance(11 * kNsPerSec);
  EXPECT_EQ(dispatcher_.jobs(), 0U);
  turn();
  EXPECT_EQ(device.next()->type, FrameType::kCancel);
  read(peer);
  ASSERT_EQ(last_->type, FrameType::kFailed);
  EXPECT_EQ(last_->as<wire::Failed>().status, 408U);
  EXPECT_EQ(last_->as<wire::Failed>().code, "not_read");
}

}  // namespace
}  // namespace penstock::queue
