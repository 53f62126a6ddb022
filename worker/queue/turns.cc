#include "worker/queue/turns.h"

#include <algorithm>

#include "worker/queue/budget.h"

namespace penstock::queue {
namespace {

bool goes_before(const Bid& a, const Bid& b) {
  if (a.priority != b.priority) {
    return a.priority > b.priority;
  }
  const int64_t now_ns = a.worker->device().turn.tag_ns;
  const int64_t a_ns = std::max(now_ns, a.worker->turn.tag_ns);
  const int64_t b_ns = std::max(now_ns, b.worker->turn.tag_ns);
  return a_ns != b_ns ? a_ns < b_ns : uint64_t{a.busy} * b.slots < uint64_t{b.busy} * a.slots;
}

// All slots are at work at once: so the tags keep to real time, and never overflow.
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

void take_turn(Budget& worker, int64_t expected_ns, int64_t now_ns) {
  Budget& device = worker.device();
  const int64_t begins_ns = std::max(device.turn.tag_ns, worker.turn.tag_ns);
  device.turn.tag_ns = begins_ns;
  device.turn.given_ns = worker.turn.given_ns = now_ns;
  ++device.turn.given;
  worker.turn.tag_ns = begins_ns + of_device(worker, expected_ns);
}

void settle_turn(Budget& worker, int64_t expected_ns, int64_t took_ns) {
  worker.turn.tag_ns += of_device(worker, took_ns - expected_ns);
}

}  // namespace penstock::queue
