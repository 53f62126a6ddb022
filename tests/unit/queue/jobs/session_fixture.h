// A dispatcher with real sessions over socket pairs; the test holds the other ends.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <list>
#include <optional>
#include <string>
#include <vector>

#include "shared/base/event_loop.h"
#include "shared/wire/messages.h"
#include "worker/queue/api/caller_session.h"
#include "worker/queue/api/intake.h"
#include "worker/queue/api/jobs_api.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/jobs/worker_session.h"

namespace penstock::queue {

// The far end of a connection, in the test's hands.
class Peer {
 public:
  explicit Peer(Fd fd) : fd_(std::move(fd)) {}

  void send_bytes(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      ASSERT_GT(n, 0);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
  template <typename M>
  void send(uint64_t id, const M& message) {
    std::string bytes;
    wire::append(bytes, id, message);
    send_bytes(bytes);
  }
  void send_empty(wire::FrameType type, uint64_t id) {
    std::string bytes;
    wire::append_empty(bytes, type, id);
    send_bytes(bytes);
  }
  void close() { fd_.reset(); }

  // The next frame that has arrived, if any.
  struct Received {
    wire::FrameType type;
    uint64_t id;
    std::string payload;
    template <typename M>
    M as() const {
      M message;
      EXPECT_EQ(type, M::kType);
      EXPECT_EQ(wire::parse(payload, message), nullptr);
      return message;
    }
  };
  std::optional<Received> next() {
    read();
    const wire::Decoded decoded = wire::decode(buffer_, {});
    if (decoded.kind != wire::Decoded::kFrame) {
      return std::nullopt;
    }
    Received received{decoded.frame.header.type, decoded.frame.header.id,
                      std::string(decoded.frame.payload)};
    buffer_.erase(0, decoded.consumed);
    return received;
  }
  bool hung_up() {
    read();
    return ended_;
  }

 private:
  void read() {
    char piece[65536];
    ssize_t n = 0;
    while (!ended_ && (n = ::recv(fd_.get(), piece, sizeof piece, MSG_DONTWAIT)) > 0) {
      buffer_.append(piece, static_cast<size_t>(n));
    }
    ended_ = ended_ || n == 0 || (n < 0 && errno == ECONNRESET);
  }

  Fd fd_;
  std::string buffer_;
  bool ended_ = false;
};

class SessionTest : public testing::Test, public CallerHost, public WorkerHost {
 protected:
  static constexpr int64_t kWallMs = 1'700'000'000'000;

  SessionTest()
      : loop_(*EventLoop::create()),
        connections_(loop_, {}, [this] { return now_ns_; }),
        dispatcher_(connections_, [] { return wall_ns_ / kNsPerMs; }),
        intake_(dispatcher_, kWallMs / 1000),
        jobs_api_(dispatcher_, intake_) {
    config_.queues = {QueueConfig{"default"}};
    config_.queues[0].backoff_ns = kNsPerSec;
    WorkerConfig worker;
    worker.name = "demo";
    worker.engine = "simulate";
    worker.model = "models/demo";
    worker.model_name = "demo";
    config_.workers = {worker};
    connections_.set_now(now_ns_);
    wall_ns_ = kWallMs * kNsPerMs;
    apply();
  }
  void apply() { dispatcher_.apply(config_); }

  static std::pair<Fd, Fd> pair() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    return {Fd(fds[0]), Fd(fds[1])};
  }
  Peer connect() {
    auto [ours, theirs] = pair();
    CallerSession& session =
        callers_.emplace_back(connections_, std::move(ours), handlers_, *this, credentials_);
    session.self = std::prev(callers_.end());
    EXPECT_TRUE(session.open());
    return Peer(std::move(theirs));
  }
  Peer caller() {
    Peer peer = connect();
    peer.send(0, wire::Hello{.version = 1, .role = 1});
    return peer;
  }
  // A device without a bound of its own, but for what is set here.
  struct DeviceShare {
    Budget budget{.slots = 1U << 17};
    Claims claims;
  };
  DeviceShare& share_device(const Budget& budget) {
    shared_ = &shares_.emplace_back();
    shared_->budget = budget;
    return *shared_;
  }
  Peer connect_worker(const std::string& name = "demo", const std::string& model = "demo") {
    auto [ours, theirs] = pair();
    DeviceShare& share = shared_ != nullptr ? *shared_ : shares_.emplace_back();
    Seat& seat = seats_.emplace_back(share.budget, share.claims);
    Scheduler& scheduler = dispatcher_.scheduler();
    worker_ = &workers_.emplace_back(connections_, std::move(ours), dispatcher_, *this, name,
                                     scheduler.lane(*scheduler.find_queue("default"), model), seat,
                                     pace_);
    EXPECT_TRUE(worker_->open());
    return Peer(std::move(theirs));
  }
  Peer worker(uint64_t credit, const std::string& name = "demo",
              const std::string& model = "demo") {
    Peer peer = connect_worker(name, model);
    peer.send(0, wire::Hello{.version = 1, .role = 2, .name = name, .model = model, .slots = 2});
    peer.send(0, wire::Take{credit});
    turn();
    return peer;
  }
  static wire::Submit post(std::string_view body = "{}") {
    return {.owner = "Bearer sk-secret",
            .method = "POST",
            .path = "/v1/completions",
            .content_type = "application/json",
            .body = body};
  }

  // Turns the loop until nothing is ready, then lets held-back frames go.
  void turn() {
    for (int i = 0; i < 50; ++i) {
      loop_.run_once(0, 0);
      connections_.reap();
      connections_.flush();
    }
    pass(ConnectionLoop::kDelayNs);
    connections_.flush();
  }
  void advance(int64_t ns) {
    pass(ns);
    dispatcher_.advance_to(now_ns_);
    connections_.flush();
  }
  // Time goes on, and so does the time of day, which may be stepped besides.
  void pass(int64_t ns) {
    connections_.set_now(now_ns_ += ns);
    wall_ns_ += ns;
  }
  static void step(int64_t ns) { wall_ns_ += ns; }

  std::string status_json() override { return "{\"status\":\"serving\"}"; }
  void on_caller_closed(CallerSession& session) override { callers_.erase(session.self); }
  void on_greeted(CallerSession&) override { ++greeted_; }
  void on_worker(CallerSession& session, std::string hello) override {
    hello_ = hello + session.release().unread;
    callers_.erase(session.self);
  }
  void on_edge(const CallerSession&, const wire::Hello&, bool) override {}
  void on_refused(std::string_view, std::string_view reason) override { refused_ = reason; }
  void on_denied(std::string_view reason) override { denied_ = reason; }
  void on_worker_ready(WorkerSession& session) override { dispatcher_.worker_ready(session); }
  void on_worker_closed(WorkerSession& session) override {
    last_words_ = session.last_words();
    session.seat().release();
    dispatcher_.worker_lost(session, 0, "", ordered_);
    workers_.remove_if([&](const WorkerSession& each) { return &each == &session; });
  }

  static inline int64_t wall_ns_ = 0;
  int64_t now_ns_ = kNsPerSec;
  EventLoop loop_;
  ConnectionLoop connections_;
  Dispatcher dispatcher_;
  Intake intake_;
  JobsApi jobs_api_;
  Handlers handlers_{dispatcher_, intake_, jobs_api_};
  Config config_;
  std::list<CallerSession> callers_;
  std::list<DeviceShare> shares_;
  Pace* pace_ = nullptr;           // of the workers to come
  DeviceShare* shared_ = nullptr;  // of the workers to come; nullptr: each has its own
  std::list<Seat> seats_;
  std::list<WorkerSession> workers_;
  WorkerSession* worker_ = nullptr;  // the last that connected
  Credentials credentials_{
      .pid = 1, .uid = 0, .roles = kOperator | kEdge | kViewer};  // of callers to come
  int greeted_ = 0;
  std::string hello_;  // of a worker, and what it said with it
  std::string refused_;
  std::string denied_;
  std::string last_words_;
  bool ordered_ = false;  // workers that close do so because they were told
};

}  // namespace penstock::queue
