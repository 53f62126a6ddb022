#include "worker/queue/bound/scaling.h"

#include <algorithm>

namespace penstock::queue {

uint32_t Scaling::Worker::most() const {
  const uint64_t all = any_gpu ? kMostProcesses : uint64_t{slots} * devices;
  return static_cast<uint32_t>(std::min<uint64_t>(all, kMostProcesses));
}

uint32_t Scaling::of(const Worker& worker) const {
  const auto found = wanted_.find(worker.name);
  return found == wanted_.end() ? worker.devices : found->second;
}

std::vector<Scaling::Process> Scaling::apply(const std::vector<Worker>& workers) {
  std::map<std::string, uint32_t> kept;
  for (const Worker& worker : workers) {
    if (const auto wish = wanted_.find(worker.name); wish != wanted_.end()) {
      kept[worker.name] = std::min(wish->second, worker.most());
    }
  }
  wanted_ = std::move(kept);
  std::vector<Process> processes;
  for (size_t at = 0; at < workers.size(); ++at) {
    const Worker& worker = workers[at];
    const uint32_t count = of(worker);
    for (uint32_t i = 0; i < std::max(count, 1U); ++i) {
      processes.push_back({at, worker.name + (i == 0 ? "" : "#" + std::to_string(i + 1)),
                           count == 0 ? 0 : worker.slots});
    }
  }
  return processes;
}

}  // namespace penstock::queue
