// Config: penstock.yaml, read and checked (CONTRACT, section 5).
//
// Everything a user may write is checked here, once, so that the rest of penstockd can trust a
// Config. Each complaint names the file, the line and the key, and says what would be right:
//
//     penstock.yaml:7: key 'workers[0].slotz': unknown key; did you mean 'slots'?
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/log.h"
#include "worker/queue/bound/autoscale.h"
#include "worker/queue/bound/pace.h"
#include "worker/queue/config/notify_config.h"
#include "worker/queue/config/provider_config.h"
#include "worker/queue/config/redis_config.h"
#include "worker/queue/config/results_config.h"
#include "worker/queue/config/settings.h"
#include "worker/queue/config/traces_config.h"
#include "worker/queue/link/roles.h"

namespace penstock::queue {

constexpr size_t kMaxConfigBytes = 1U << 20;  // of all its files

struct QueueConfig {
  std::string name;
  uint32_t max_length = 10'000;  // jobs that wait
  uint32_t max_per_owner = 0;    // of those, of one owner; 0: as many as max_length
  uint32_t attempts = 3;
  int64_t deadline_ns = 600 * kNsPerSec;
  int64_t backoff_ns = 2 * kNsPerSec;
  int64_t keep_results_ns = 86'400 * kNsPerSec;
  int64_t aging_ns = kNsPerSec;  // a lower class is let before that often; 0: never
  int64_t keep_bodies_ns = 0;    // of promised jobs that are over, to run them again; 0: not
  bool shared = false;           // its order is in Redis, for all hosts that serve it
  bool local_on_error = false;   // while Redis is away, this host serves its own callers alone
  bool operator==(const QueueConfig&) const = default;
};

// Whether others count with a worker on this device: `auto` and `cpu` are each worker's own.
inline bool is_shared_device(std::string_view device) {
  return device != "auto" && device != "cpu";
}

struct WorkerConfig {
  std::string name;
  std::string engine;      // "llama", "simulate"
  std::string model;       // as written; may be empty
  std::string model_path;  // llama: absolute, or relative to where penstockd was started
  std::string model_name;  // what callers ask for; never empty
  // "auto", "cpu", or numbers and UUIDs; http: the urls, as each is bounded like a device.
  std::vector<std::string> devices = {"auto"};
  std::string device;           // of those, where a process was placed (devices.h)
  bool adaptive_slots = false;  // `slots: auto`: how many of them are used is found by trying
  uint32_t slots = 1;           // jobs at once on a device
  int64_t memory_bytes = 0;     // of it, that they may hold; 0: no budget was set
  std::string queue = "default";
  uint32_t threads = 0;                                      // 0: the worker chooses
  std::vector<std::pair<std::string, std::string>> options;  // the engine's own, units normalised
  // "NAME=value", on no command line and in no log; process: its `env`; http: its headers.
  std::vector<std::string> environment;
  bool external = false;  // penstockd does not start it: it connects to the socket
  std::string kind;       // of what it makes: "text", "image"; empty: not told
  std::string limit_key;  // of the PaceConfig that bounds what is behind it; empty: nothing does
  bool operator==(const WorkerConfig&) const = default;

  // Whether a process takes its memory when it starts, for all of its jobs, rather than job by job.
  bool reserves_memory() const { return engine == "llama" || engine == "process"; }
  bool may_use_a_gpu() const {
    return devices.front() == "auto" ? engine == "llama"
                                     : devices.front() != "cpu" && engine != "http";
  }
};

// How fast several workers together may use the server behind them (bound/pace.h).
struct PaceConfig {
  std::string key;
  std::vector<PaceLimit> limits;
  uint32_t at_once = 0;  // 0: any number
};

// A worker that has as many processes as the waits of its callers ask for.
struct AutoscaleConfig {
  static constexpr int64_t kTargetWaitNs = 30 * kNsPerSec;
  static constexpr int64_t kDownNs = 300 * kNsPerSec;
  std::string worker;
  AutoscaleBounds bounds;
};

// What all workers on a device may use together.
struct DeviceConfig {
  std::string id;            // as workers name it
  uint32_t slots = 0;        // 0: the most that one of its workers may
  int64_t memory_bytes = 0;  // likewise
};

struct LimitsConfig {
  int64_t max_body_bytes = int64_t{32} << 20;   // of one job
  int64_t max_held_bytes = int64_t{1} << 30;    // of all jobs together; past it: 503
  int64_t max_unsent_bytes = int64_t{4} << 20;  // of an answer its caller does not read
  uint32_t max_connections = 20'000;
  int64_t heartbeat_timeout_ns = 10 * kNsPerSec;   // a worker silent for longer is killed
  int64_t start_timeout_ns = 600 * kNsPerSec;      // a worker not ready by then is killed
  int64_t worker_grace_ns = 10 * kNsPerSec;        // callers wait that long for a lost worker
  int64_t max_state_bytes = int64_t{16} << 30;     // on disk, of jobs and results; past it: 503
  int64_t keep_dead_ns = 30 * 86'400 * kNsPerSec;  // jobs that failed every attempt
  int64_t hello_timeout_ns = 10 * kNsPerSec;       // a peer that has said nothing by then leaves
  int64_t step_timeout_ns = 60 * kNsPerSec;  // a worker is killed whose engine is longer at a step
  int64_t read_timeout_ns = 60 * kNsPerSec;  // an answer of which nothing is read is cut short
  // The part of max_state that one caller may take; beyond it: 429. 0: half.
  int64_t max_state_per_owner_bytes = 0;
  int64_t max_result_bytes = int64_t{1} << 30;       // of a promised job; past it the job fails
  int64_t max_unwritten_bytes = int64_t{256} << 20;  // of results that wait for the disk
  int64_t reserve_bytes = int64_t{64} << 20;         // on disk, kept for ends
  int64_t check_timeout_ns = 500 * kNsPerMs;       // a promise waits that long for CHECKED; 0: none
  int64_t max_checking_bytes = int64_t{64} << 20;  // of requests that are being checked
  bool operator==(const LimitsConfig&) const = default;

  int64_t max_share_bytes() const {
    return max_state_per_owner_bytes > 0 ? max_state_per_owner_bytes : max_state_bytes / 2;
  }
};

struct LogConfig {
  LogSettings settings;
  bool jobs = true;  // a line for each job's end
  bool operator==(const LogConfig&) const = default;
};

// What is kept of who used what (docs/USAGE.md).
struct LedgerConfig {
  int64_t keep_ns = 400 * 86'400 * kNsPerSec;
  uint32_t max_rows = 2'000'000;
  bool operator==(const LedgerConfig&) const = default;
};

struct WebhooksConfig {
  std::string secret_file;         // empty: no webhooks are sent
  std::vector<std::string> allow;  // targets that are private or special, and yet allowed
  bool operator==(const WebhooksConfig&) const = default;
};

struct Config {
  uint64_t digest = 0;             // of the files' text
  std::vector<std::string> files;  // that it was read from, the first that which was named
  Settings settings;               // all of it, for people
  std::string socket;
  uint32_t socket_mode = 0660;
  std::string socket_group;  // empty: left as it is
  AccessConfig access;
  LogConfig log;
  TracesConfig traces;
  std::string state;          // jobs and results; empty: no jobs are promised
  std::string worker_binary;  // empty: penstock-worker beside penstockd
  int64_t drain_timeout_ns = 30 * kNsPerSec;
  std::vector<QueueConfig> queues;  // "default" is always there
  std::vector<WorkerConfig> workers;
  std::vector<DeviceConfig> devices;
  std::vector<PaceConfig> paces;
  std::vector<AutoscaleConfig> autoscales;
  LimitsConfig limits;
  LedgerConfig ledger;
  WebhooksConfig webhooks;
  std::vector<HookConfig> notify;
  RedisConfig redis;
  ResultsConfig results;
  std::vector<ProviderConfig> challenges;
};

}  // namespace penstock::queue
