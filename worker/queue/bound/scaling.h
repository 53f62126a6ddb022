// Scaling: how many processes there are of each worker, when an operator wants another number than
// the one of the configuration.
//
// Without a wish there is one for each device that the worker lists. What the configuration allows
// a worker on a device is all that its processes there may use together, whatever their number
// (devices.h). The first goes on under the worker's name; the others are called NAME#2, NAME#3 and
// so on, which no configuration can.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/config/config.h"

namespace penstock::queue {

class Scaling {
 public:
  static constexpr uint32_t kMostProcesses = 64;

  // Each can have a slot of its own.
  static uint32_t most(const WorkerConfig& worker);
  // 0: it is stopped.
  void set(const std::string& worker, uint32_t processes) { wanted_[worker] = processes; }
  uint32_t of(const WorkerConfig& worker) const;

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
