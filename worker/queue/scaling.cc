#include "worker/queue/scaling.h"

#include <algorithm>

namespace penstock::queue {

uint32_t Scaling::most(const WorkerConfig& worker) {
  return std::min(worker.slots, kMostProcesses);
}

uint32_t Scaling::of(const std::string& worker) const {
  const auto found = wanted_.find(worker);
  return found == wanted_.end() ? 1 : found->second;
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
    const uint32_t count = of(worker.name);
    for (uint32_t i = 0; i < std::max(count, 1U); ++i) {
      WorkerConfig& process = processes.emplace_back(worker);
      process.name += i == 0 ? "" : "#" + std::to_string(i + 1);
      process.slots = count == 0 ? 0 : worker.slots / count + (i < worker.slots % count ? 1 : 0);
      process.memory_bytes = count == 0 ? 0 : worker.memory_bytes / count;
    }
  }
  return processes;
}

}  // namespace penstock::queue
