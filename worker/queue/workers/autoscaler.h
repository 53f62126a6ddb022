// Autoscaler: has the Supervisor run as many processes of a worker as the waits of its callers ask
// for, if `min_workers` or `max_workers` allows it. For an autoscaler outside, it also tells how
// many every worker would need.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "worker/queue/bound/autoscale.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/workers/supervisor.h"

namespace penstock::queue {

class Autoscaler {
 public:
  static constexpr int64_t kEveryNs = kNsPerSec;

  // Both outlive this.
  Autoscaler(Dispatcher& dispatcher, Supervisor& supervisor)
      : dispatcher_(dispatcher), supervisor_(supervisor) {}

  void advance_to(const Config& config, int64_t now_ns);
  int64_t next_event() const { return due_ns_; }
  // How many processes each worker should have, by its name.
  const std::map<std::string, uint32_t>& desired() const { return desired_; }

 private:
  void look_at(const WorkerConfig& worker, const AutoscaleConfig* bounds, int64_t now_ns);

  Dispatcher& dispatcher_;
  Supervisor& supervisor_;
  int64_t due_ns_ = 0;
  std::map<std::string, Autoscale> of_;  // by worker
  std::map<std::string, uint32_t> desired_;
};

}  // namespace penstock::queue
