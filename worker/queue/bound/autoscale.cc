#include "worker/queue/bound/autoscale.h"

#include <algorithm>

namespace penstock::queue {

uint32_t Autoscale::wish(const AutoscaleBounds& bounds, const Load& load) {
  const uint64_t now = std::max(load.processes, 1U);
  uint64_t wanted = now;
  if (load.wait_ns > bounds.target_wait_ns) {
    const auto target_ns = static_cast<double>(std::max<int64_t>(bounds.target_wait_ns, 1));
    const double more = static_cast<double>(load.wait_ns) / target_ns;
    wanted = static_cast<uint64_t>(static_cast<double>(now) * std::min(more, 2.0) + 0.999);
  } else if (load.wait_ns == 0) {
    wanted = (load.running + uint64_t{load.slots} - 1) / load.slots;
  }
  return static_cast<uint32_t>(std::clamp<uint64_t>(wanted, bounds.min, bounds.max));
}

uint32_t Autoscale::desired(const AutoscaleBounds& bounds, const Load& load, int64_t now_ns) {
  const uint32_t now = wish(bounds, load);
  const size_t size = wishes_.size();
  if (size >= 2 && wishes_[size - 1].processes == now && wishes_[size - 2].processes == now) {
    wishes_.back().at_ns = now_ns;
  } else {
    wishes_.push_back({now_ns, now});
  }
  // The one that held when the window began is in it.
  while (wishes_.size() >= 2 && wishes_[1].at_ns <= now_ns - bounds.down_ns) {
    wishes_.pop_front();
  }
  const bool old = wishes_.front().at_ns <= now_ns - bounds.down_ns;
  uint32_t least = now;  // of the last kUpNs
  uint32_t most = now;   // of the whole window
  bool lasted = false;
  for (auto each = wishes_.rbegin(); each != wishes_.rend(); ++each) {
    most = std::max(most, each->processes);
    if (!lasted) {
      least = std::min(least, each->processes);
      lasted = each->at_ns <= now_ns - kUpNs;
    }
  }
  const uint32_t within = std::clamp(load.processes, bounds.min, bounds.max);
  if (lasted && least > within) {
    return least;
  }
  return old ? std::min(within, most) : within;
}

}  // namespace penstock::queue
