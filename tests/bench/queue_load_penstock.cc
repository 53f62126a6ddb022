// penstockd's own wire (shared/wire/PROTOCOL.md), as a caller, and as a tool that reads its
// counters.
#include <charconv>
#include <deque>

#include "shared/base/clock.h"
#include "shared/wire/messages.h"
#include "tests/bench/queue_load.h"

namespace penstock::load {
namespace {

using wire::FrameType;

class Caller final : public Session {
 public:
  Caller(const Plan& plan, Tally& tally, unsigned number)
      : Session(tally), plan_(plan), began_ns_(plan.depth), body_(plan.body_bytes, 'x') {
    owner_ = "client " + std::to_string(number);
  }

  void begin() override {
    wire::append(
        out, 0,
        wire::Hello{.version = wire::kVersion, .role = static_cast<uint64_t>(wire::Role::kCaller)});
    for (unsigned id = 1; id <= plan_.depth; ++id) {
      idle_.push_back(id);
    }
    resume();
  }

  void resume() override {
    while (!idle_.empty() && tally_.may_send()) {
      submit(idle_.front());
      idle_.pop_front();
    }
  }

  size_t take(std::string_view bytes) override {
    size_t at = 0;
    wire::FrameHeader header;
    while (bytes.size() - at >= wire::kHeaderBytes) {
      if (const char* broken = wire::decode_header(bytes.data() + at, {}, header)) {
        die("a bad frame:", broken);
      }
      const size_t size = wire::kHeaderBytes + header.length;
      if (bytes.size() - at < size) {
        break;
      }
      hear(header, bytes.substr(at + wire::kHeaderBytes, header.length));
      at += size;
    }
    resume();
    return at;
  }

 private:
  void submit(unsigned id) {
    began_ns_[id - 1] = monotonic_ns();
    ++tally_.sent;
    wire::append(out, id,
                 wire::Submit{.queue = plan_.queue,
                              .owner = owner_,
                              .priority = plan_.priority,
                              .method = "POST",
                              .path = "/work",
                              .content_type = "application/octet-stream",
                              .prefer = plan_.mode == "sync" ? "" : "respond-async",
                              .body = body_});
  }

  void hear(const wire::FrameHeader& header, std::string_view payload) {
    if (header.type == FrameType::kHead) {
      wire::Head head;
      wire::parse(payload, head);
      // A promised job that has ended before its 202 could be said is answered at once.
      if (head.status != 200 && (head.status != 202 || plan_.mode == "sync")) {
        die("an answer has status", std::to_string(head.status));
      }
      if (plan_.mode != "sync") {
        record(tally_, began_ns_[header.id - 1]);
      }
    } else if (header.type == FrameType::kDone) {
      if (plan_.mode == "sync") {
        record(tally_, began_ns_[header.id - 1]);
        ++tally_.completed;
      }
      idle_.push_back(static_cast<unsigned>(header.id));
    } else if (header.type == FrameType::kFailed) {
      wire::Failed failed;
      wire::parse(payload, failed);
      if (failed.status != 503) {
        die("a job failed:", failed.message);
      }
      ++tally_.refused;
      idle_.push_back(static_cast<unsigned>(header.id));
    } else if (header.type == FrameType::kGoodbye) {
      die("penstockd says goodbye:", payload);
    }
  }

  const Plan plan_;
  std::vector<int64_t> began_ns_;  // by id
  std::deque<unsigned> idle_;      // ids that are free
  const std::string body_;
  std::string owner_;
};

// Asks again and again how many jobs have completed: promised ones are over when their end is on
// disk.
class Counter final : public Session {
 public:
  using Session::Session;

  void begin() override {
    wire::append(
        out, 0,
        wire::Hello{.version = wire::kVersion, .role = static_cast<uint64_t>(wire::Role::kTool)});
    resume();
  }

  void resume() override {
    if (!asked_) {
      asked_ = true;
      wire::append(out, 0, wire::StatusReport{});
    }
  }

  size_t take(std::string_view bytes) override {
    wire::FrameHeader header;
    if (bytes.size() < wire::kHeaderBytes ||
        wire::decode_header(bytes.data(), {}, header) != nullptr ||
        bytes.size() < wire::kHeaderBytes + header.length) {
      return 0;
    }
    constexpr std::string_view kName = "\"completed\":";
    const size_t at = bytes.find(kName);
    if (at == bytes.npos) {
      die("STATUS says nothing of what has completed:", bytes.substr(wire::kHeaderBytes));
    }
    uint64_t total = 0;
    std::from_chars(bytes.data() + at + kName.size(), bytes.data() + bytes.size(), total);
    if (first_ == UINT64_MAX) {
      first_ = total;
    }
    tally_.completed = total - first_;
    asked_ = false;
    return wire::kHeaderBytes + header.length;
  }

 private:
  uint64_t first_ = UINT64_MAX;  // completed before us
  bool asked_ = false;
};

}  // namespace

Sessions penstock_sessions(const Plan& plan, Tally& tally) {
  Sessions sessions;
  if (plan.mode == "whole") {
    sessions.push_back(std::make_unique<Counter>(tally));
  } else if (plan.mode != "sync" && plan.mode != "enqueue") {
    die("penstock knows the modes sync, enqueue and whole, not", plan.mode);
  }
  for (unsigned i = 0; i < plan.clients; ++i) {
    sessions.push_back(std::make_unique<Caller>(plan, tally, i));
  }
  return sessions;
}

}  // namespace penstock::load
