// What stands in a Scheduler's lanes: the classes of jobs, and where a job stands among them.
// Within the scheduler only: scheduler.cc, lanes.cc, aging.cc and prediction.cc.
#pragma once

#include <cstdint>

#include "worker/queue/order/scheduler.h"

namespace penstock::queue {

struct Scheduler::Class {
  Class(Lane& its_lane, Owners& owners) : lane(its_lane), share(owners) {}
  Lane& lane;
  int64_t priority = 0;
  uint32_t waiting = 0;  // delayed ones included
  OrderTree line;        // of those that may be taken, and are not promoted
  FairShare share;
};

// REQUIRES: it is waiting, delayed or running.
inline Scheduler::Class& Scheduler::Ticket::its_class() const noexcept {
  return state() == State::kRunning ? *run_->of : *class_;
}

inline FairShare::Tags Scheduler::Ticket::tags() const noexcept {
  const uint64_t start = promoted_ ? place.arrival : place.tag;
  return {flow_, start, start + span_};
}

inline OrderTree& Scheduler::line_of(const Ticket& ticket) noexcept {
  Class& its = ticket.its_class();
  return ticket.promoted_ ? its.lane.promoted_ : its.line;
}

inline Scheduler::OrderKey Scheduler::order_key(const Ticket& ticket) noexcept {
  return {ticket.promoted_ ? kHighest + 1 : ticket.its_class().priority, ticket.place};
}

// The lanes whose jobs go to the same workers as this lane's.
template <typename Visit>
void Scheduler::each_competing(const Lane& lane, Visit&& visit) {
  const Lane& any = lane.queue->any_model();
  if (lane.is_any()) {
    for (const auto& each : lane.queue->lanes) {
      visit(*each);
    }
  } else {
    visit(lane);
    visit(any);
  }
}

inline const ServiceTime& Scheduler::service_of(const Lane& lane) noexcept {
  return lane.service.known() ? lane.service : lane.queue->any_model().service;
}

inline const OrderTree kNobody;

// Without a branch: the processor could not guess in which class the next job is.
inline Scheduler::WorkAhead Scheduler::ahead(const Lane& lane, const OrderKey& at) noexcept {
  if (at.priority > kHighest) {
    return {{}, &lane.promoted_};
  }
  WorkAhead ahead{lane.promoted_.total(), &kNobody};
  for (const auto& each : lane.classes_) {
    const bool higher = each->priority > at.priority;
    const bool same = each->priority == at.priority && each->line.size() > 0;
    ahead.lines.count += higher ? each->line.total().count : 0;
    ahead.lines.cost += higher ? each->line.total().cost : 0;
    ahead.line = same ? &each->line : ahead.line;
  }
  return ahead;
}

}  // namespace penstock::queue
