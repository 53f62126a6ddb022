#include "worker/queue/bound/scaling.h"

#include <algorithm>

namespace penstock::queue {

uint32_t Scaling::most(const WorkerConfig& worker) {
  const bool any_gpu = worker.devices.front() == "auto" && worker.may_use_a_gpu();
  const uint64_t slots = any_gpu ? kMostProcesses : uint64_t{worker.slots} * worker.devices.size();
  return static_cast<uint32_t>(std::min<uint64_t>(slots, kMostProcesses));
}

uint32_t Scaling::of(const WorkerConfig& worker) const {
  const auto found = wanted_.find(worker.name);
  return found == wanted_.end() ? static_cast<uint32_t>(worker.devices.size()) : found->second;
}

std::vector<WorkerConfig> Scaling::apply(const std::vector<WorkerConfig>& workers) {
  std::map<std::string, uint32_t> kept;
  for (const WorkerConfig& worker : workers) {
    if (const auto wish = wanted_.find(worker.name); wish != wanted_.end()) {
      kept[worker.name] = std::min(wish->second, most(worker));
    }
  }
  wanted_ = std::move(kept);
  std::vector<WorkerConfig> processes;
  for (const WorkerConfig& worker : workers) {
    const uint32_t count = of(worker);
    for (uint32_t i = 0; i < std::max(count, 1U); ++i) {
      WorkerConfig& process = processes.emplace_back(worker);
      process.name += i == 0 ? "" : "#" + std::to_string(i + 1);
      process.slots = count == 0 ? 0 : worker.slots;
    }
  }
  return processes;
}

}  // namespace penstock::queue
