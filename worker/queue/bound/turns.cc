#include "worker/queue/bound/turns.h"

#include <algorithm>

namespace penstock::queue {
namespace {

int64_t tag_of(const TurnTags& turn, int64_t priority) {
  const auto found = turn.by_class.find(priority);
  return found == turn.by_class.end() ? 0 : found->second;
}

// Where the bidder's job would begin.
int64_t start_of(const Bid& bid) {
  return std::max(tag_of(bid.worker->device().tags, bid.priority),
                  tag_of(bid.worker->tags, bid.priority));
}

bool goes_before(const Bid& a, const Bid& b) {
  if (a.priority != b.priority) {
    return a.priority > b.priority;
  }
  if (const int64_t a_ns = start_of(a), b_ns = start_of(b); a_ns != b_ns) {
    return a_ns < b_ns;
  }
  const uint64_t a_busy = uint64_t{a.busy} * b.slots;
  const uint64_t b_busy = uint64_t{b.busy} * a.slots;
  return a_busy != b_busy ? a_busy < b_busy : a.worker->tags.given_ns < b.worker->tags.given_ns;
}

// All slots are at work at once: so the tags keep to real time.
int64_t of_device(const Budget& worker, int64_t slot_ns) {
  return slot_ns / std::max<int64_t>(1, worker.device().slots);
}

// Since when the bidder is passed over.
int64_t since_ns(const Bid& bid) { return std::max(bid.arrived_ns, bid.worker->tags.given_ns); }

}  // namespace

size_t next_turn(std::span<const Bid> bids, int64_t now_ns) {
  const Bid* first = bids.data();
  for (const Bid& bid : bids) {
    first = goes_before(bid, *first) ? &bid : first;
  }
  TurnTags& device = first->worker->device().tags;
  const Bid* oldest = nullptr;
  for (const Bid& bid : bids) {
    if (bid.priority < first->priority && bid.aging_ns > 0 &&
        now_ns - since_ns(bid) >= bid.aging_ns &&
        (oldest == nullptr || since_ns(bid) < since_ns(*oldest))) {
      oldest = &bid;
    }
  }
  if (oldest != nullptr && device.given - device.promoted_at >= kTurnsPerPromotion) {
    device.promoted_at = device.given + 1;
    first = oldest;
  }
  return static_cast<size_t>(first - bids.data());
}

int64_t take_turn(Budget& worker, int64_t priority, int64_t expected_ns, int64_t now_ns) {
  TurnTags& device = worker.device().tags;
  const int64_t begins_ns = std::max(tag_of(device, priority), tag_of(worker.tags, priority));
  const int64_t charged_ns = of_device(worker, expected_ns);
  device.by_class[priority] = begins_ns;
  ++device.given;
  std::erase_if(worker.tags.by_class, [&](const auto& each) {  // it would begin there anyway
    return each.second <= tag_of(device, each.first);
  });
  worker.tags.by_class[priority] = begins_ns + charged_ns;
  worker.tags.given_ns = now_ns;
  for (TurnTags* const each : {&device, &worker.tags}) {
    if (each->by_class.size() > kMostTurnClasses) {
      each->by_class.erase(each->by_class.begin());
    }
  }
  return charged_ns;
}

void settle_turn(Budget& worker, int64_t priority, int64_t charged_ns, int64_t took_ns) {
  const int64_t now_ns = tag_of(worker.device().tags, priority);
  const auto tag = worker.tags.by_class.try_emplace(priority, now_ns).first;
  tag->second += of_device(worker, took_ns) - charged_ns;
  if (tag->second <= now_ns) {
    worker.tags.by_class.erase(tag);
  }
}

}  // namespace penstock::queue
