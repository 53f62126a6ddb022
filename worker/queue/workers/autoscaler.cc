#include "worker/queue/workers/autoscaler.h"

#include <algorithm>

#include "worker/queue/config/scaled_workers.h"

namespace penstock::queue {

void Autoscaler::advance_to(const Config& config, int64_t now_ns) {
  if (now_ns < due_ns_) {
    return;
  }
  due_ns_ = now_ns + kEveryNs;
  const auto known = [&](const auto& each) {
    return std::any_of(config.workers.begin(), config.workers.end(),
                       [&](const WorkerConfig& worker) { return worker.name == each.first; });
  };
  std::erase_if(of_, [&](const auto& each) { return !known(each); });
  std::erase_if(desired_, [&](const auto& each) { return !known(each); });
  for (const WorkerConfig& worker : config.workers) {
    const auto bounds =
        std::find_if(config.autoscales.begin(), config.autoscales.end(),
                     [&](const AutoscaleConfig& each) { return each.worker == worker.name; });
    look_at(worker, bounds == config.autoscales.end() ? nullptr : &*bounds, now_ns);
  }
}

void Autoscaler::look_at(const WorkerConfig& worker, const AutoscaleConfig* own, int64_t now_ns) {
  Scheduler& scheduler = dispatcher_.scheduler();
  Scheduler::Queue* const queue = scheduler.find_queue(worker.queue);
  const Scheduler::Lane& lane = scheduler.lane(*queue, worker.model_name);
  const uint32_t processes = supervisor_.processes_of(worker);
  const AutoscaleConfig usual{.bounds = {.max = Scaling::kMostProcesses,
                                         .target_wait_ns = AutoscaleConfig::kTargetWaitNs,
                                         .down_ns = AutoscaleConfig::kDownNs}};
  const uint32_t desired = of_[worker.name].desired(
      (own != nullptr ? own : &usual)->bounds,
      {.processes = processes,
       .slots = worker.slots,
       .running = lane.running,
       .wait_ns = queue->paused ? 0 : scheduler.predicted_wait_ns(lane, now_ns)},
      now_ns);
  desired_[worker.name] = desired;
  if (own != nullptr && desired != processes && !supervisor_.is_ordered(worker.name)) {
    supervisor_.autoscale(worker.name, desired);
  }
}

}  // namespace penstock::queue
