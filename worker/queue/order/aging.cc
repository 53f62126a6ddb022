#include <algorithm>
#include <utility>

#include "worker/queue/order/lanes.h"

namespace penstock::queue {

// Looks at the lane, and says when to look again: never, once nobody waits; wait() sees to it.
void Scheduler::age(Lane& lane, int64_t now_ns) {
  if (head(lane) == nullptr || lane.queue->settings.aging_ns <= 0) {
    aging_.erase(lane);
  } else {
    aging_.set(lane, std::max(promote_one(lane, now_ns), now_ns + 1));
  }
}

int64_t Scheduler::promote_one(Lane& lane, int64_t now_ns) {
  const Queue& queue = *lane.queue;
  int64_t top = std::exchange(lane.highest_taken_, INT64_MIN);
  const int64_t later_ns = now_ns + queue.settings.aging_ns;
  if (queue.paused || lane.promoted_.size() > 0 ||
      queue.taken_ - lane.promoted_at_ < kTakesPerPromotion) {
    return later_ns;
  }
  each_competing(lane, [&](const Lane& each) {
    for (const auto& its : each.classes_) {
      top = std::max(top, its->line.size() > 0 ? its->priority : INT64_MIN);
    }
  });
  Ticket* oldest = nullptr;
  const auto goes_before = [](const Ticket& a, const Ticket& b) {
    return a.arrived_ns_ != b.arrived_ns_ ? a.arrived_ns_ < b.arrived_ns_
                                          : order_key(a).before(order_key(b));
  };
  for (const auto& each : lane.classes_) {
    if (each->priority < top && each->line.size() > 0) {
      Ticket& first = ticket_of(*each->line.first());
      oldest = oldest == nullptr || goes_before(first, *oldest) ? &first : oldest;
    }
  }
  if (oldest == nullptr) {
    return later_ns;
  }
  const int64_t due_ns = oldest->arrived_ns_ + queue.settings.aging_ns;
  if (due_ns > now_ns) {
    return due_ns;
  }
  oldest->class_->line.erase(*oldest);
  oldest->promoted_ = true;
  std::swap(oldest->place.tag, oldest->place.arrival);
  lane.promoted_.insert(*oldest);
  lane.promoted_at_ = queue.taken_;
  return later_ns;
}

}  // namespace penstock::queue
