#include "worker/queue/config/scaled_workers.h"

#include <algorithm>
#include <iterator>

namespace penstock::queue {

Scaling::Worker scaling_of(const WorkerConfig& worker) {
  return {.name = worker.name,
          .slots = worker.slots,
          .devices = static_cast<uint32_t>(worker.devices.size()),
          .any_gpu = worker.devices.front() == "auto" && worker.may_use_a_gpu()};
}

std::vector<WorkerConfig> scaled_workers(const std::vector<WorkerConfig>& workers,
                                         Scaling& scaling) {
  std::vector<Scaling::Worker> plain;
  std::transform(workers.begin(), workers.end(), std::back_inserter(plain), scaling_of);
  std::vector<WorkerConfig> processes;
  for (Scaling::Process& each : scaling.apply(plain)) {
    WorkerConfig& process = processes.emplace_back(workers[each.worker]);
    process.name = std::move(each.name);
    process.slots = each.slots;
  }
  return processes;
}

}  // namespace penstock::queue
