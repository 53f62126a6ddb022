// The metrics page: what penstockd has counted, for whoever scrapes the edge.
//
// A file beside the socket (SOCKET.metrics), written each second by penstockd and read by Nginx
// when somebody asks for /metrics. Plain numbers in this host's order; a reader that finds another
// magic or size shows none of it. Histograms count what is in each bucket alone; the last is all
// above.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "shared/wire/status_page.h"

namespace penstock::wire {

constexpr uint64_t kMetricsMagic = 0x3847504d434f5453;  // "STOCMPG8"
constexpr size_t kMaxClasses = 8;                       // priorities told apart in one queue

// Upper bounds of the buckets.
inline constexpr std::array<double, 12> kWaitBounds = {0.01, 0.05, 0.1, 0.5, 1,   2,
                                                       5,    10,   30,  60,  300, 1800};  // seconds
// Streamed answers, in seconds: vLLM's bounds, and shorter ones for the time of each token.
inline constexpr std::array<double, 22> kFirstTokenBounds = {
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
inline constexpr std::array<double, 20> kPerTokenBounds = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
    0.3,   0.4,    0.5,   0.75, 1,     2.5,  5,     10,  40,   80};
inline constexpr std::array<double, 6> kErrorBounds = {0.05, 0.1, 0.25, 0.5, 1, 2};  // a ratio

// Copies as much of the text as fits, and fills the rest of `to` with zeros.
template <size_t kBytes>
void copy_text(char (&to)[kBytes], std::string_view text) noexcept {
  const size_t size = std::min(text.size(), kBytes - 1);
  std::fill(std::copy_n(text.begin(), size, to), to + kBytes, '\0');
}

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
  kEarlier,  // answered as an earlier one was
};
constexpr size_t kJobEvents = 10;

// Of a queue that hosts share, as this host knows.
struct SharedMetrics {
  uint64_t used = 0;   // 1: it is one
  uint64_t hosts = 0;  // that live
  uint64_t waiting = 0;
  uint64_t scheduled = 0;  // or waiting for another try
  uint64_t running = 0;
  uint64_t renewal_age_ms = 0;  // since this host's lease was renewed
  uint64_t requests = 0;        // to Redis, that were answered ...
  uint64_t request_ns = 0;      // ... which took so long in all
  uint64_t unsent = 0;          // ends that Redis does not have yet
  uint64_t reaped = 0;          // jobs of dead hosts, put back or ended by this one
  uint64_t lag_us = 0;          // of what is heard from Redis
  uint64_t promise_kept = 0;    // 1: a 202 is kept as it says; see the metric's help
  uint64_t acknowledged = 0;    // the last promise, by so many replicas
  uint64_t unacknowledged = 0;  // times that it was by too few
};

struct QueueMetrics {
  char name[kQueueNameBytes] = {};
  uint64_t oldest_wait_ms = 0;
  uint64_t paused = 0;
  uint64_t events[kJobEvents] = {};
  // The jobs that started, by class. Classes beyond the last place are counted there.
  ClassMetrics classes[kMaxClasses];
  // |predicted - actual| over the longer of the actual wait and a service time.
  Buckets<kErrorBounds> prediction_error;
  uint64_t ranges = 0;      // jobs that waited, and were told between which times they would start
  double inside_ratio = 0;  // of the last thousand of them: those that did
  SharedMetrics shared;
};

constexpr size_t kModelNameBytes = 132;  // longest model's name + 1, and more
constexpr size_t kMaxModels = 64;
constexpr size_t kMaxWorkers = 256;  // processes
constexpr size_t kMaxDevices = 128;

// How the answers of one model in one queue came, over all its workers and since penstockd began.
struct ServingMetrics {
  char queue[kQueueNameBytes] = {};
  char model[kModelNameBytes] = {};  // empty: the place is not used
  Buckets<kFirstTokenBounds> first_token;
  Buckets<kPerTokenBounds> per_token;
};

// One worker process, as it said last; one that is awaited as well.
struct WorkerMetrics {
  char name[48] = {};
  char queue[kQueueNameBytes] = {};
  char model[kModelNameBytes] = {};
  uint64_t ready = 0;     // 1; 0: what it said is nothing
  uint64_t restarts = 0;  // times that it ended without being told to
  uint64_t slots = 0;
  uint64_t running = 0;
  uint64_t waiting = 0;
  uint64_t memory_bytes = 0;
  uint64_t steps = 0;
  uint64_t step_jobs = 0;
  uint64_t prompt_tokens = 0;
  uint64_t generation_tokens = 0;
  uint64_t kv_blocks = 0;
  uint64_t kv_blocks_used = 0;
};

// How many processes a worker of the configuration should have, by its load.
struct DesiredMetrics {
  char worker[48] = {};
  char queue[kQueueNameBytes] = {};
  char model[kModelNameBytes] = {};
  uint64_t processes = 0;
};

// One device; figures as in wire::Device.
struct DeviceMetrics {
  char label[16] = {};  // "0", "0:1"
  char uuid[96] = {};
  char name[96] = {};
  uint64_t known = 0;  // of DeviceFigure
  uint64_t utilization_percent = 0;
  uint64_t memory_used_bytes = 0;
  uint64_t memory_total_bytes = 0;
  uint64_t temperature_celsius = 0;
  uint64_t power_mw = 0;
  uint64_t healthy = 0;
};

struct MetricsPage {
  uint64_t magic = kMetricsMagic;
  uint64_t bytes = sizeof(MetricsPage);
  uint64_t config_refused = 0;    // 1: in whole or in part, at the last HUP
  uint64_t unreadable_files = 0;  // with secrets or certificates, that penstock.yaml names
  uint64_t queues_used = 0;
  QueueMetrics queues[kMaxQueues];
  uint64_t dead_letters = 0;  // kept now
  uint64_t state_bytes = 0;   // on disk, and at most
  uint64_t max_state_bytes = 0;
  uint64_t state_broken = 0;  // 1: promises cannot be written
  uint64_t write_errors = 0;
  uint64_t state_disk_bytes = 0;  // that its files take
  uint64_t unwritten_bytes = 0;   // in memory, on their way to the disk
  uint64_t lost_results = 0;      // that could not be stored: their jobs failed
  uint64_t damaged_rows = 0;      // promised jobs that could not be read: they failed
  uint64_t commits = 0;           // of the store, each flushed to disk ...
  uint64_t commit_ns = 0;         // ... which took so long in all
  uint64_t ledger_rows = 0;       // of usage
  uint64_t ledger_waiting = 0;    // ends that are counted, and not in it yet
  uint64_t webhooks[5] = {};      // delivered, retried, given up, refused target, disabled
  uint64_t webhooks_pending = 0;
  uint64_t notices[3] = {};  // tries to tell hooks: delivered, retried, given up
  ServingMetrics serving[kMaxModels];
  uint64_t workers_used = 0;
  WorkerMetrics workers[kMaxWorkers];
  uint64_t desired_used = 0;
  DesiredMetrics desired[kMaxWorkers];
  uint64_t devices_wanted = 0;   // 1: some worker may use a device
  uint64_t devices_watched = 0;  // 1: they are being looked at
  uint64_t devices_used = 0;
  DeviceMetrics devices[kMaxDevices];
};

}  // namespace penstock::wire
