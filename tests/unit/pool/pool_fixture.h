// A pool on one end of a real socket pair, and penstockd's part played by the test on the other.
// Time is pushed in; nothing sleeps.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "worker/engines/simulate/simulate_engine.h"
#include "worker/pool/pool.h"

namespace penstock::test {

struct Received {
  wire::FrameType type;
  uint64_t id;
  std::string payload;
};

// Its jobs run until the test ends them.
class EndlessEngine : public Engine {
 public:
  explicit EndlessEngine(Sink& sink) : sink_(sink) {}

  void start(JobNumber job, std::unique_ptr<Plan>) override { running.push_back(job); }
  int64_t step(int64_t now_ns) override {
    ++steps;
    return now_ns;
  }
  bool cancel(JobNumber job) override {
    std::erase(running, job);
    return true;
  }
  void end(JobNumber job) {
    std::erase(running, job);
    sink_.done(job, {});
  }

  std::vector<JobNumber> running;
  int steps = 0;

 protected:
  Sink& sink_;
};

class PoolTest : public ::testing::Test {
 protected:
  using MakeEngine = std::unique_ptr<Engine> (*)(Sink&);

  static std::unique_ptr<Engine> instant(Sink& sink) { return simulated(sink, {}); }
  static std::unique_ptr<Engine> ten_ms(Sink& sink) {
    return simulated(sink, {.service_time_ns = 10 * kNsPerMs});
  }
  static std::unique_ptr<Engine> simulated(Sink& sink, const simulate::SimulateOptions& options) {
    return std::make_unique<simulate::SimulateEngine>(options, "sim", sink);
  }

  void make(std::unique_ptr<Engine> (*engine)(Sink&), uint32_t slots = 4,
            int64_t memory_bytes = 0) {
    open_link();
    start_pool(engine(*sink_), slots, memory_bytes);
  }

  void open_link() {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    peer_.reset(ends[0]);
    link_.emplace(Fd(ends[1]));
    sink_.emplace(link_->out());
  }

  void start_pool(std::unique_ptr<Engine> engine, uint32_t slots, int64_t memory_bytes = 0,
                  bool claims_memory = false) {
    Pool::Options options;
    options.claims_memory = claims_memory;
    options.name = "w";
    options.model = "sim";
    options.slots = slots;
    options.memory_bytes = memory_bytes;
    pool_.emplace(options, *link_, *sink_, std::move(engine));
  }

  // Lets the pool make one turn at now_ns_.
  Pool::Next turn() { return last_ = pool_->turn(now_ns_); }
  Pool::Next turn_at(int64_t now_ns) {
    now_ns_ = now_ns;
    return turn();
  }

  void send(std::string_view bytes) {
    ASSERT_EQ(::send(peer_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  static std::string submit_bytes(JobNumber job, std::string_view body = "x",
                                  std::string_view path = "/any") {
    wire::Submit submit;
    submit.method = "POST";
    submit.path = path;
    submit.body = body;
    std::string out;
    wire::append(out, job, submit);
    return out;
  }
  void submit(JobNumber job, std::string_view body = "x") { send(submit_bytes(job, body)); }
  void check(uint64_t number, std::string_view body, std::string_view path = "/v1/completions") {
    std::string bytes = submit_bytes(number, body, path);
    wire::encode_header(bytes.data(), wire::FrameType::kCheck, number,
                        static_cast<uint32_t>(bytes.size() - wire::kHeaderBytes));
    send(bytes);
  }
  void send_empty(wire::FrameType type, JobNumber job) {
    std::string out;
    wire::append_empty(out, type, job);
    send(out);
  }
  void cancel(JobNumber job) { send_empty(wire::FrameType::kCancel, job); }

  // Everything the pool has sent since last asked.
  std::vector<Received> receive() {
    char buffer[1 << 16];
    for (ssize_t got; (got = ::recv(peer_.get(), buffer, sizeof buffer, MSG_DONTWAIT)) > 0;) {
      received_.append(buffer, static_cast<size_t>(got));
    }
    std::vector<Received> frames;
    for (;;) {
      const auto decoded = wire::decode(received_, {});
      if (decoded.kind != wire::Decoded::kFrame) {
        EXPECT_EQ(decoded.kind, wire::Decoded::kIncomplete) << decoded.error;
        return frames;
      }
      frames.push_back(
          {decoded.frame.header.type, decoded.frame.header.id, std::string(decoded.frame.payload)});
      received_.erase(0, decoded.consumed);
    }
  }

  // "HEAD 7, CHUNK 7, DONE 7, TAKE 1": what came, without heartbeats.
  static std::string story(const std::vector<Received>& frames) {
    static constexpr const char* kNames[] = {
        "",        "HELLO",  "SUBMIT",  "ACCEPTED", "HEAD",      "CHUNK",  "PROGRESS",
        "DONE",    "FAILED", "CANCEL",  "TAKE",     "HEARTBEAT", "STATUS", "DRAIN",
        "GOODBYE", "ASK",    "HOLD",    "OVER",     "",          "",       "CLAIM",
        "GRANT",   "CHECK",  "CHECKED", "WINDOW",   "SETTLED",   "SLOTS",  "PREVIEW"};
    std::string out;
    for (const Received& frame : frames) {
      if (frame.type == wire::FrameType::kHeartbeat) {
        continue;
      }
      const uint64_t number = frame.type == wire::FrameType::kTake ? credit_of(frame) : frame.id;
      out += (out.empty() ? "" : ", ") + std::string(kNames[static_cast<size_t>(frame.type)]) +
             " " + std::to_string(number);
    }
    return out;
  }
  std::string story() { return story(receive()); }

  static uint64_t credit_of(const Received& frame) { return parsed<wire::Take>(frame).credit; }
  template <typename M>
  static M parsed(const Received& frame) {
    M message;
    EXPECT_EQ(frame.type, M::kType);
    EXPECT_EQ(wire::parse(frame.payload, message), nullptr);
    return message;
  }

  Fd peer_;
  std::optional<Link> link_;
  std::optional<FrameSink> sink_;
  std::optional<Pool> pool_;
  std::string received_;
  int64_t now_ns_ = 1'000'000'000'000;
  Pool::Next last_;
};

}  // namespace penstock::test
