// The metrics page: what penstockd has counted, for whoever scrapes the edge.
//
// A file beside the socket (SOCKET.metrics), written each second by penstockd and read by Nginx
// when somebody asks for /metrics. Plain numbers in this host's order; a reader that finds another
// magic or size shows none of it. Histograms count what is in each bucket alone; the last is all
// above.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "shared/wire/status_page.h"

namespace penstock::wire {

constexpr uint64_t kMetricsMagic = 0x3147504d434f5453;  // "STOCMPG1"
constexpr size_t kMaxClasses = 8;                       // priorities told apart in one queue

// Upper bounds of the buckets.
inline constexpr std::array<double, 12> kWaitBounds = {0.01, 0.05, 0.1, 0.5, 1,   2,
                                                       5,    10,   30,  60,  300, 1800};  // seconds
inline constexpr std::array<double, 6> kErrorBounds = {0.05, 0.1, 0.25, 0.5, 1, 2};       // a ratio

template <const auto& kBounds>
struct Buckets {
  uint64_t count[kBounds.size() + 1] = {};
  double sum = 0;

  void observe(double value) noexcept {
    size_t bucket = 0;
    while (bucket < kBounds.size() && value > kBounds[bucket]) {
      ++bucket;
    }
    ++count[bucket];
    sum += value;
  }
};

struct ClassMetrics {
  int64_t priority = 0;
  uint64_t used = 0;  // 0: nothing of this class has started yet
  Buckets<kWaitBounds> wait;
};

// How jobs have ended, and what else befell them.
enum class JobEvent : uint8_t {
  kAccepted,
  kPromised,
  kDuplicate,
  kCompleted,
  kFailed,
  kDead,
  kCancelled,
  kExpired,
  kRetried,
};
constexpr size_t kJobEvents = 9;

struct QueueMetrics {
  char name[kQueueNameBytes] = {};
  uint64_t oldest_wait_ms = 0;
  uint64_t paused = 0;
  uint64_t events[kJobEvents] = {};
  // Of those that started: by class; classes past the last place are counted in it.
  ClassMetrics classes[kMaxClasses];
  // |predicted - actual| over the longer of the actual wait and a service time.
  Buckets<kErrorBounds> prediction_error;
};

struct MetricsPage {
  uint64_t magic = kMetricsMagic;
  uint64_t bytes = sizeof(MetricsPage);
  uint64_t queues_used = 0;
  QueueMetrics queues[kMaxQueues];
  uint64_t dead_letters = 0;  // kept now
  uint64_t state_bytes = 0;   // on disk, and at most
  uint64_t max_state_bytes = 0;
  uint64_t state_broken = 0;  // 1: promises cannot be written
  uint64_t write_errors = 0;
  uint64_t commits = 0;       // of the store, each flushed to disk ...
  uint64_t commit_ns = 0;     // ... which took so long in all
  uint64_t webhooks[5] = {};  // delivered, retried, given up, refused target, disabled
  uint64_t webhooks_pending = 0;
};

}  // namespace penstock::wire
