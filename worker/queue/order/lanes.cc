#include "worker/queue/order/lanes.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <map>
#include <utility>

namespace penstock::queue {

using State = Scheduler::Ticket::State;

Scheduler::Queue& Scheduler::set_queue(const QueueSettings& settings) {
  const auto known = std::find_if(queues_.begin(), queues_.end(), [&](const Queue& each) {
    return each.settings.name == settings.name;
  });
  const bool fresh = known == queues_.end();
  Queue* const queue = fresh ? &queues_.emplace_back() : &*known;
  if (fresh) {
    queue->lanes.push_back(std::make_unique<Lane>());
    queue->lanes.front()->queue = queue;
  }
  queue->settings = settings;
  queue->retired = false;
  for (const auto& lane : queue->lanes) {
    if (lane->is_set()) {
      aging_.set(*lane, INT64_MIN);  // aging may have changed: it is looked at next
    }
  }
  return *queue;
}

Scheduler::Queue* Scheduler::find_queue(std::string_view name) noexcept {
  for (Queue& queue : queues_) {
    if (queue.settings.name == name && !queue.retired) {
      return &queue;
    }
  }
  return nullptr;
}

void Scheduler::retire_all_but(const std::function<bool(std::string_view)>& stays) {
  for (Queue& queue : queues_) {
    queue.retired = queue.retired || !stays(queue.settings.name);
  }
}

Scheduler::Lane& Scheduler::lane(Queue& queue, std::string_view model) {
  for (const auto& lane : queue.lanes) {
    if (lane->model == model) {
      return *lane;
    }
  }
  Lane& lane = *queue.lanes.emplace_back(std::make_unique<Lane>());
  lane.queue = &queue;
  lane.model = model;
  return lane;
}

void Scheduler::set_capacity(Lane& lane, uint32_t jobs) noexcept {
  Lane& any = lane.queue->any_model();
  assert(&lane != &any);
  any.capacity = any.capacity - lane.capacity + jobs;
  lane.capacity = jobs;
  for (Lane* each : {&lane, &any}) {
    if (each->capacity > 0) {
      each->last_capacity_ = each->capacity;
    }
  }
}

void Scheduler::set_rivals(Lane& lane, uint32_t device_slots, std::vector<Rival> rivals) noexcept {
  lane.device_slots_ = device_slots;
  const size_t most = std::min(rivals.size(), kMostRivals);
  std::partial_sort(rivals.begin(), rivals.begin() + static_cast<ptrdiff_t>(most), rivals.end(),
                    [](const Rival& a, const Rival& b) { return a.slots > b.slots; });
  rivals.resize(most);
  lane.queue->has_rivals_ = lane.queue->has_rivals_ || most > 0;
  lane.rivals_ = std::move(rivals);
}

bool Scheduler::full(const Queue& queue, uint64_t owner) noexcept {
  const uint32_t most = queue.settings.max_per_owner;
  if (most == 0) {
    return false;
  }
  const Owner* const known = queue.owners_.find(owner);
  return known != nullptr && known->waiting() >= most;
}

// The first of a lane, nullptr when it is empty.
Scheduler::Ticket* Scheduler::head(const Lane& lane) noexcept {
  const OrderTree* line = &lane.promoted_;
  int64_t highest = INT64_MIN;
  for (const auto& each : lane.classes_) {
    if (each->line.size() > 0 && lane.promoted_.size() == 0 &&
        (line == &lane.promoted_ || each->priority > highest)) {
      line = &each->line;
      highest = each->priority;
    }
  }
  OrderTree::Node* const first = line->first();
  return first == nullptr ? nullptr : &ticket_of(*first);
}

int64_t Scheduler::oldest_wait_ns(const Queue& queue, int64_t now_ns) noexcept {
  int64_t oldest_ns = now_ns;
  const Ticket* const first = queue.deadlines_.find_first(
      [](const Ticket& ticket) { return ticket.state() == State::kWaiting; });
  if (first != nullptr) {
    oldest_ns = std::min(oldest_ns, first->arrived_ns_);
  }
  for (const auto& lane : queue.lanes) {
    for (const auto& each : lane->classes_) {
      if (OrderTree::Node* const leads = each->line.first(); leads != nullptr) {
        oldest_ns = std::min(oldest_ns, ticket_of(*leads).arrived_ns_);
      }
    }
  }
  return now_ns - oldest_ns;
}

std::vector<Scheduler::ClassLength> Scheduler::waiting_by_class(const Queue& queue) {
  std::map<int64_t, uint32_t, std::greater<>> by_class;
  for (const auto& lane : queue.lanes) {
    for (const auto& each : lane->classes_) {
      if (each->waiting > 0) {
        by_class[each->priority] += each->waiting;
      }
    }
  }
  std::vector<ClassLength> lengths;
  for (const auto& [priority, waiting] : by_class) {
    if (lengths.size() < kMostClasses) {
      lengths.push_back({priority, waiting});
    } else {
      lengths.back() = {priority, lengths.back().waiting + waiting};
    }
  }
  return lengths;
}

}  // namespace penstock::queue
