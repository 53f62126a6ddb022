// Scaling: how many processes there are of each worker, when an operator wants another number than
// the one of the configuration.
//
// What the configuration allows a worker is all that its processes may use together: N processes
// share its slots and its memory, so their sum is the same whatever N is. The first goes on under
// the worker's name; the others are called NAME#2, NAME#3 and so on, which no configuration can.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/config.h"

namespace penstock::queue {

class Scaling {
 public:
  static constexpr uint32_t kMostProcesses = 64;

  // Each needs a slot of its own.
  static uint32_t most(const WorkerConfig& worker);
  // 0: it is stopped.
  void set(const std::string& worker, uint32_t processes) { wanted_[worker] = processes; }
  uint32_t of(const std::string& worker) const;

  // One entry for each process. A worker that is stopped stays, with no slots: callers may still
  // name its model. Wishes about workers that are not there, or are too many, are forgotten.
  std::vector<WorkerConfig> apply(const std::vector<WorkerConfig>& workers);

  // The worker that a process is one of.
  static std::string_view worker_of(std::string_view process) {
    return process.substr(0, process.find('#'));
  }

 private:
  std::map<std::string, uint32_t> wanted_;
};

}  // namespace penstock::queue
