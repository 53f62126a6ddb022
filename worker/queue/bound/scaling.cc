#include "worker/queue/bound/scaling.h"

#include <algorithm>

namespace penstock::queue {

uint32_t Scaling::Worker::most() const {
  const uint64_t all = any_gpu ? kMostProcesses : uint64_t{slots} * devices;
  return static_cast<uint32_t>(std::min<uint64_t>(all, kMostProcesses));
}

void Scaling::begin_by_load(std::map<std::string, uint32_t> least) {
  for (auto& [worker, processes] : least) {
    if (const auto known = by_load_.find(worker); known != by_load_.end()) {
      processes = known->second;
    }
  }
  by_load_ = std::move(least);
}

uint32_t Scaling::of(const Worker& worker) const {
  for (const auto* const wishes : {&wanted_, &by_load_}) {
    if (const auto found = wishes->find(worker.name); found != wishes->end()) {
      return found->second;
    }
  }
  return worker.devices;
}

std::vector<Scaling::Process> Scaling::apply(const std::vector<Worker>& workers) {
  for (auto* const wishes : {&wanted_, &by_load_}) {
    std::map<std::string, uint32_t> kept;
    for (const Worker& worker : workers) {
      if (const auto wish = wishes->find(worker.name); wish != wishes->end()) {
        kept[worker.name] = std::min(wish->second, worker.most());
      }
    }
    *wishes = std::move(kept);
  }
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
