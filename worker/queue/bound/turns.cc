#include "worker/queue/bound/turns.h"

#include <algorithm>

#include "worker/queue/bound/budget.h"

namespace penstock::queue {
namespace {

int64_t tag_of(const Turn& turn, int64_t priority) {
  const auto found = turn.tags.find(priority);
  return found == turn.tags.end() ? 0 : found->second;
}

// Where the bidder's job would begin.
int64_t start_of(const Bid& bid) {
  return std::max(tag_of(bid.worker->device().turn, bid.priority),
                  tag_of(bid.worker->turn, bid.priority));
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
  return a_busy != b_busy ? a_busy < b_busy : a.worker->turn.given_ns < b.worker->turn.given_ns;
}

// All slots are at work at once: so the tags keep to real time.
int64_t of_device(const Budget& worker, int64_t slot_ns) {
  return slot_ns / std::max<int64_t>(1, worker.device().slots);
}

// Since when the bidder is passed over.
int64_t since_ns(const Bid& bid) { return std::max(bid.arrived_ns, bid.worker->turn.given_ns); }

}  // namespace

size_t next_turn(std::span<const Bid> bids, int64_t now_ns) {
  const Bid* first = bids.data();
  for (const Bid& bid : bids) {
    first = goes_before(bid, *first) ? &bid : first;
  }
  Turn& device = first->worker->device().turn;
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
  Turn& device = worker.device().turn;
  const int64_t begins_ns = std::max(tag_of(device, priority), tag_of(worker.turn, priority));
  const int64_t charged_ns = of_device(worker, expected_ns);
  device.tags[priority] = begins_ns;
  ++device.given;
  std::erase_if(worker.turn.tags, [&](const auto& each) {  // it would begin there anyway
    return each.second <= tag_of(device, each.first);
  });
  worker.turn.tags[priority] = begins_ns + charged_ns;
  worker.turn.given_ns = now_ns;
  for (Turn* const each : {&device, &worker.turn}) {
    if (each->tags.size() > kMostTurnClasses) {
      each->tags.erase(each->tags.begin());
    }
  }
  return charged_ns;
}

void settle_turn(Budget& worker, int64_t priority, int64_t charged_ns, int64_t took_ns) {
  const int64_t now_ns = tag_of(worker.device().turn, priority);
  const auto tag = worker.turn.tags.try_emplace(priority, now_ns).first;
  tag->second += of_device(worker, took_ns) - charged_ns;
  if (tag->second <= now_ns) {
    worker.turn.tags.erase(tag);
  }
}

}  // namespace penstock::queue
