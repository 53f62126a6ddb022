// A large answer is stored as it was sent, and told as it was sent, in whatever pieces it comes.
#include <fstream>
#include <random>
#include <sstream>

#include "promise_fixture.h"

namespace penstock::queue {
namespace {

using Pieces = std::vector<size_t>;  // bytes of each CHUNK
constexpr size_t kKiB = 1024;
constexpr size_t kLargestChunk = 1024 * kKiB;  // PROTOCOL.md

class LargeAnswerTest : public PromiseTest, public testing::WithParamInterface<Pieces> {
 protected:
  // One frame, however large, in what the socket takes at once.
  void send_chunk(Peer& device, uint64_t number, const std::string& text) {
    std::string frame(wire::kHeaderBytes, '\0');
    wire::encode_header(frame.data(), wire::FrameType::kChunk, number,
                        static_cast<uint32_t>(text.size()));
    frame += text;
    for (size_t at = 0; at < frame.size(); at += 64 * kKiB) {
      device.send_bytes(std::string_view(frame).substr(at, 64 * kKiB));
      turn();
    }
  }
  // What the events tell of it, piece by piece; each begins where the one before has ended.
  void read_events(Peer& peer) {
    for (bool more = true; more; turn()) {  // the socket holds some at a time
      more = false;
      while (const auto frame = peer.next()) {
        events_ += frame->type == wire::FrameType::kChunk ? frame->payload : "";
        more = true;
      }
    }
    for (size_t end = 0; (end = events_.find("\n\n")) != std::string::npos;
         events_.erase(0, end + 2)) {
      const std::string event = events_.substr(0, end);
      const size_t offset = event.find("{\"offset\":");
      const size_t text = event.find("\"text\":\"");
      if (offset != std::string::npos && text != std::string::npos) {
        EXPECT_EQ(std::stoull(event.substr(offset + 10)), told_.size());
        told_ += event.substr(text + 8, event.rfind('"') - text - 8);
      }
    }
  }
  static std::string content(const std::string& path) {
    std::ostringstream bytes;
    bytes << std::ifstream(path, std::ios::binary).rdbuf();
    return bytes.str();
  }

  std::string events_, told_;
};

TEST_P(LargeAnswerTest, IsStoredAndToldAsItWasSent) {
  config_.limits.max_unsent_bytes = int64_t{64} << 20;
  apply();
  Peer peer = caller();
  Peer device = worker(1);
  const std::string id = promised(peer, 1);
  Peer listener = caller();
  listener.send(2, get("/" + id + "/events"));
  settle();
  const uint64_t number = take(device);
  device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
  std::mt19937 random(static_cast<uint32_t>(GetParam().size()));
  std::string sent;
  for (const size_t size : GetParam()) {
    std::string piece(size, 'a');
    for (char& letter : piece) {
      letter = static_cast<char>('a' + random() % 26);
    }
    send_chunk(device, number, piece);
    sent += piece;
    read_events(listener);
  }
  device.send(number, wire::Done{});
  settle();
  read_events(listener);
  const Reply result = get_job(peer, 2, id, "/result");
  ASSERT_FALSE(result.file.empty()) << result.code;
  EXPECT_TRUE(content(result.file) == sent) << "the file is not what was sent";
  EXPECT_TRUE(told_ == sent) << "the events told " << told_.size() << " of " << sent.size();
  EXPECT_TRUE(store_->health());
}

std::vector<Pieces> cases() {
  std::vector<Pieces> cases = {{256 * kKiB, 20 * kKiB, 256 * kKiB, 10 * kKiB},
                               {256 * kKiB, 20 * kKiB, 256 * kKiB},
                               {513 * kKiB},
                               {kLargestChunk, 1, kLargestChunk}};
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    std::mt19937 random(seed);
    Pieces& pieces = cases.emplace_back();
    // Small ones, and now and then the largest that there may be.
    for (size_t bytes = 0; bytes < 3 * kLargestChunk || pieces.size() < 4; bytes += pieces.back()) {
      const size_t most = size_t{1} << random() % 21;
      pieces.push_back(1 + random() % std::min(kLargestChunk, std::max<size_t>(most, 1000)));
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(OfManyPieces, LargeAnswerTest, testing::ValuesIn(cases()));

}  // namespace
}  // namespace penstock::queue
