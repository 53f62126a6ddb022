// The status page: what penstockd tells the edge without being asked.
//
// A small file beside the socket (SOCKET.status): penstockd writes it, every Nginx worker copies it
// ten times a second, so a request that cannot be served is refused without touching the socket.
// All fields are atomics of their own; each is true by itself, and a reader that sees two from
// different moments at worst refuses, or hands over, one request that penstockd would have judged
// otherwise. penstockd always judges again.
//
// Trust: readers use a page only while heartbeat_ns is recent (kStaleNs); penstockd's death makes
// it stale by itself, and then the edge goes to the socket and lets the upstream machinery find
// out.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace penstock::wire {

constexpr uint64_t kStatusMagic = 0x3247504b434f5453;  // "STOCKPG2"
constexpr size_t kMaxQueues = 64;
constexpr size_t kQueueNameBytes = 40;  // longest queue name + 1
constexpr int64_t kStatusStaleNs = 3'000'000'000;

enum class QueueState : uint32_t {
  kUnused = 0,
  kOpen = 1,
  kFull = 2,      // length has reached max_length
  kNoWorker = 3,  // nobody serves it, and none has for a while
  kDraining = 4,
  kCannotLoad = 5,  // as kNoWorker, and those that were started did not get ready
  kAway = 6,        // shared, and Redis, where it is, does not answer
};

// The predicted wait of a queue that is paused: nobody knows.
constexpr uint64_t kNoPredictedWait = UINT64_MAX;

struct QueueStatus {
  char name[kQueueNameBytes];               // constant while `state` is not kUnused
  std::atomic<uint32_t> state;              // QueueState
  std::atomic<uint32_t> length;             // jobs waiting
  std::atomic<uint32_t> running;            // jobs on workers
  std::atomic<uint32_t> slots;              // what its live workers can run at once
  std::atomic<uint64_t> predicted_wait_ms;  // for a job that came now, lowest class; or
                                            // kNoPredictedWait
  std::atomic<uint64_t> retry_after_s;      // when refused: come back then
  std::atomic<uint64_t> drain_step_us;      // kFull: so often a job leaves it; 0: not known
  std::atomic<int64_t>
      returns_until_ns;  // CLOCK_MONOTONIC: until then others were told to come back
};

struct StatusPage {
  std::atomic<uint64_t> magic;        // kStatusMagic, written last
  std::atomic<int64_t> heartbeat_ns;  // CLOCK_MONOTONIC, renewed each 500 ms
  std::atomic<uint64_t> pid;
  QueueStatus queues[kMaxQueues];

  // nullptr when there is no such queue.
  const QueueStatus* find(std::string_view name) const noexcept {
    for (const QueueStatus& queue : queues) {
      if (queue.state.load(std::memory_order_acquire) == 0) {
        return nullptr;
      }
      if (name == std::string_view(queue.name, strnlen(queue.name, sizeof queue.name))) {
        return &queue;
      }
    }
    return nullptr;
  }
};

static_assert(std::atomic<uint64_t>::is_always_lock_free);

}  // namespace penstock::wire
