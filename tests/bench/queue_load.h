// Load on a queue, in closed loops: each session has one request under way (or `depth`), and sends
// the next when that is answered. One thread, one epoll; latencies are kept whole, for percentiles.
//
// A session speaks one protocol over one connection, as producer or as consumer. The loop gives it
// what arrives, and sends what it says.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::load {

// What all sessions do together.
struct Tally {
  uint64_t wanted = UINT64_MAX;            // requests to be sent, then no more
  uint64_t most_outstanding = UINT64_MAX;  // sent, but not completed; past it producers pause
  uint64_t sent = 0;
  uint64_t answered = 0;   // the producer was told: queued, or the answer itself
  uint64_t completed = 0;  // run, and what came of it is safe where it is to be safe
  uint64_t refused = 0;
  std::vector<uint32_t> latency_us;  // of `answered`

  bool may_send() const {
    return sent < wanted && sent - std::min(sent, completed + refused) < most_outstanding;
  }
};

class Session {
 public:
  explicit Session(Tally& tally) : tally_(tally) {}
  virtual ~Session() = default;

  virtual void begin() = 0;
  // Takes whole messages off the front of `bytes`, and returns how many bytes those were. What is
  // wrong ends the program.
  virtual size_t take(std::string_view bytes) = 0;
  // Sends what the tally allows.
  virtual void resume() {}

  std::string out;

 protected:
  Tally& tally_;
};

enum class Peer { kPenstock, kBeanstalk, kRedisStream };
struct Plan {
  std::string address;  // of a Unix socket
  std::string
      mode;  // sync, async (penstock: ends at 202); enqueue, whole (enqueue, take, acknowledge)
  unsigned clients = 1;
  unsigned depth = 1;
  size_t body_bytes = 1024;
  int64_t priority = 0;
  std::string queue;
  std::string counter;  // penstock, whole: who counts what has completed, where that is another
};

using Sessions = std::vector<std::unique_ptr<Session>>;
Sessions penstock_sessions(const Plan& plan, Tally& tally);
Sessions beanstalk_sessions(const Plan& plan, Tally& tally);
Sessions redis_sessions(const Plan& plan, Tally& tally);

[[noreturn]] void die(std::string_view what, std::string_view detail = {});
void record(Tally& tally, int64_t since_ns);  // one request was answered

}  // namespace penstock::load
