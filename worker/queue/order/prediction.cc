// How long a job will wait, from what the jobs before it need and what their workers have been seen
// to take.
#include <algorithm>
#include <array>
#include <functional>

#include "worker/queue/order/lanes.h"

namespace penstock::queue {

using State = Scheduler::Ticket::State;

class Scheduler::Prediction {
 public:
  // Of a job that would stand there.
  static int64_t wait_at(const Lane& lane, const OrderKey& at, int64_t now_ns) noexcept;

 private:
  // What a lane's jobs still need of its workers.
  struct Load {
    double running = 0;      // jobs
    double waiting = 0;      // likewise, of those before some job
    double ns = 0;           // what all these need
    double same_ns = 0;      // of it, those that wait and are of its class
    double residual_ns = 0;  // what all would need in the midst of being run
    uint64_t cost = 0;       // of those that wait
    uint32_t own = 0;        // of those that wait, jobs of the lane's own
    uint32_t shared = 0;     // and jobs that name no model, not only its part of them

    void add(const Load& other, double part) noexcept;
    double begun_by_others_ns(double slots) const noexcept;
    double over(double slots) const noexcept;
  };
  static Load load_before(const Lane& lane, const OrderKey& at, int64_t now_ns) noexcept;
  static double wait_beside_rivals(const Lane& lane, const Load& own, int64_t priority,
                                   int64_t now_ns) noexcept;
  static double share_of(const Lane& lane) noexcept;
  // A wait is that of a queue which is resumed; other queues may be paused.
  static bool may_take(const Lane& rival, const Lane& lane) noexcept {
    return !rival.queue->paused || rival.queue == lane.queue;
  }
  static double wait_in(const Lane& lane, const OrderKey& at, int64_t now_ns) noexcept;
  static double wait_for_slots(const Lane& lane, const OrderKey& at, int64_t now_ns) noexcept;
  static double wait_for_brakes(const Lane& lane, const OrderKey& at, int64_t now_ns) noexcept;
  static OrderTree::Sum started_meanwhile(const Lane& other, const Lane& lane, int64_t priority,
                                          uint32_t turns, bool begins) noexcept;
  static double wait_by_slots(const Lane& lane, const OrderKey& at, uint32_t ahead,
                              int64_t now_ns) noexcept;
};

// A job that names a model waits for that model's workers; one that names none, for the first of
// any's: nobody need be there, but those that are count before those that are not.
int64_t Scheduler::Prediction::wait_at(const Lane& lane, const OrderKey& at,
                                       int64_t now_ns) noexcept {
  constexpr double kMostNs = 1e18;  // some thirty years
  if (!lane.is_any()) {
    return static_cast<int64_t>(std::min(wait_in(lane, at, now_ns), kMostNs));
  }
  double least_ns = -1;
  for (const auto& each : lane.queue->lanes) {
    const bool serves = lane.capacity == 0 || each->capacity > 0;
    if (each.get() != &lane && serves) {
      const double wait_ns = wait_in(*each, at, now_ns);
      least_ns = least_ns < 0 ? wait_ns : std::min(least_ns, wait_ns);
    }
  }
  return static_cast<int64_t>(std::clamp(least_ns, 0.0, kMostNs));
}

void Scheduler::Prediction::Load::add(const Load& other, double part) noexcept {
  running += part * other.running;
  waiting += part * other.waiting;
  ns += part * other.ns;
  residual_ns += part * other.residual_ns;
}

// At the moment the job starts, one slot has just become free, and each other is in the midst of a
// job. So until then the slots do all the work that is before it and all that they have begun, but
// for what those others still need.
double Scheduler::Prediction::Load::begun_by_others_ns(double slots) const noexcept {
  const double jobs = running + waiting;
  return jobs > 0 ? std::min(slots - 1, jobs) * residual_ns / jobs : 0;
}

double Scheduler::Prediction::Load::over(double slots) const noexcept {
  return std::max(0.0, ns - begun_by_others_ns(slots)) / slots;
}

// Of jobs that name no model, its workers take their part.
double Scheduler::Prediction::share_of(const Lane& lane) noexcept {
  const double all = lane.queue->any_model().last_capacity_;
  return std::min(1.0, lane.last_capacity_ / all);
}

Scheduler::Prediction::Load Scheduler::Prediction::load_before(const Lane& lane, const OrderKey& at,
                                                               int64_t now_ns) noexcept {
  const Lane& any = lane.queue->any_model();
  const ServiceTime& service = service_of(lane);
  const double share = share_of(lane);
  const auto age_ns =
      static_cast<int64_t>(lane.running * static_cast<uint64_t>(now_ns) - lane.started_ns_);
  Load load;
  load.running = lane.running;
  load.ns = service.left_ns(lane.running, static_cast<double>(lane.running_cost_),
                            static_cast<double>(std::max<int64_t>(0, age_ns)));
  const auto add = [&](const OrderTree::Sum& sum, const ServiceTime& takes, double part) {
    const double work_ns = part * takes.work_ns(sum.count, static_cast<double>(sum.cost));
    load.waiting += part * sum.count;
    load.cost += sum.cost;
    load.ns += work_ns;
    return work_ns;
  };
  const WorkAhead own = ahead(lane, at);
  const WorkAhead shared = ahead(any, at);
  const OrderTree::Sum own_same = own.line->before(at.place);
  const OrderTree::Sum shared_same = shared.line->before(at.place);
  add(own.lines, service, 1);
  add(shared.lines, any.service, share);
  load.same_ns = add(own_same, service, 1) + add(shared_same, any.service, share);
  load.own = own.lines.count + own_same.count;
  load.shared = shared.lines.count + shared_same.count;
  load.residual_ns = (load.running + load.waiting) * service.residual_ns();
  return load;
}

// Lanes take turns: while the lane does what is before the job, a rival does what runs there, its
// jobs of higher classes, and of the same class as much as the lane itself, as far as that waits or
// comes meanwhile; but no more than its own slots can do. That is a piecewise linear, concave
// function of the time, and so Newton's method finds when all of it is done, from above.
double Scheduler::Prediction::wait_beside_rivals(const Lane& lane, const Load& own,
                                                 int64_t priority, int64_t now_ns) noexcept {
  struct {
    double first_ns;  // done in any case
    double same_ns;
    double arriving;  // ns of work per ns
    double slots;
  } each[kMostRivals];
  Load all = own;
  double wait_ns = own.ns;
  for (size_t i = 0; i < lane.rivals_.size(); ++i) {
    const Rival& rival = lane.rivals_[i];
    const bool goes_on = may_take(*rival.lane, lane);
    const OrderKey at = goes_on ? OrderKey{priority, {UINT64_MAX, UINT64_MAX}}
                                : OrderKey{INT64_MAX, {0, 0}};  // before all that wait
    const Load load = load_before(*rival.lane, at, now_ns);
    const double arriving =
        rival.lane->arriving_.slots(now_ns) +
        share_of(*rival.lane) * rival.lane->queue->any_model().arriving_.slots(now_ns);
    each[i] = {rival.part * (load.ns - load.same_ns), rival.part * load.same_ns,
               goes_on ? rival.part * arriving : 0, static_cast<double>(rival.slots)};
    all.add(load, rival.part);
    wait_ns += each[i].first_ns + own.same_ns;
  }
  const double slots = lane.device_slots_;
  const double own_ns = std::max(0.0, own.ns - all.begun_by_others_ns(slots));
  for (bool sooner = true; sooner;) {
    double work_ns = own_ns;
    double free = slots;
    for (size_t i = 0; i < lane.rivals_.size(); ++i) {
      const auto& [first_ns, same_ns, arriving, rivals_slots] = each[i];
      const bool all_there = same_ns + arriving * wait_ns < own.same_ns;
      const double done_ns = first_ns + (all_there ? same_ns + arriving * wait_ns : own.same_ns);
      if (done_ns > rivals_slots * wait_ns && free > rivals_slots) {
        free -= rivals_slots;
      } else {
        work_ns += first_ns + (all_there ? same_ns : own.same_ns);
        free -= all_there ? std::min(arriving, free / 2) : 0;
      }
    }
    sooner = work_ns / free < wait_ns * 0.999;
    wait_ns = std::min(wait_ns, work_ns / free);
  }
  return wait_ns;
}

double Scheduler::Prediction::wait_in(const Lane& lane, const OrderKey& at,
                                      int64_t now_ns) noexcept {
  const int64_t opens_in_ns = lane.capacity == 0 ? std::max<int64_t>(lane.opens_ns - now_ns, 0) : 0;
  const double slots_ns = static_cast<double>(opens_in_ns) + wait_for_slots(lane, at, now_ns);
  return lane.brakes.empty() ? slots_ns : std::max(slots_ns, wait_for_brakes(lane, at, now_ns));
}

// By a brake that `other` and `lane` share, while it lets so many jobs of that class of each start.
// `begins`: the first of them is the other's, unless one of a higher class took that turn.
OrderTree::Sum Scheduler::Prediction::started_meanwhile(const Lane& other, const Lane& lane,
                                                        int64_t priority, uint32_t turns,
                                                        bool begins) noexcept {
  const OrderKey last{priority, {UINT64_MAX, UINT64_MAX}};
  OrderTree::Sum higher;
  OrderTree::Sum same;
  const auto add = [&](const Lane& from) {
    const WorkAhead there = ahead(from, last);
    higher += there.lines;
    same += there.line->total();
  };
  add(other);
  if (other.queue != lane.queue) {  // else these are the lane's own, too
    add(other.queue->any_model());
  }
  const uint32_t first = begins && higher.count == 0 ? 1 : 0;
  const uint32_t part = std::min(turns + first, same.count);
  higher += {part, same.count == 0 ? 0 : same.cost / same.count * part};
  const uint64_t brakes = std::max<size_t>(other.brakes.size(), 1);
  return {static_cast<uint32_t>(higher.count / brakes), higher.cost / brakes};
}

// The brakes share the jobs evenly. The job itself costs what those before it do. Meanwhile each of
// the brake's other lanes starts its jobs of higher classes, and of the same as many as this one.
double Scheduler::Prediction::wait_for_brakes(const Lane& lane, const OrderKey& at,
                                              int64_t now_ns) noexcept {
  const Load before = load_before(lane, at, now_ns);
  const uint64_t ahead = uint64_t{before.own} + before.shared;
  const uint64_t brakes = lane.brakes.size();
  const uint64_t jobs = (ahead + brakes) / brakes;
  const uint64_t cost = before.cost / brakes + before.cost / std::max<uint64_t>(ahead, 1);
  const WorkAhead own = Scheduler::ahead(lane, at);
  const WorkAhead shared = Scheduler::ahead(lane.queue->any_model(), at);
  const uint32_t same = own.line->before(at.place).count + shared.line->before(at.place).count;
  const bool higher = own.lines.count + shared.lines.count > 0;  // then its last turn is the latest
  int64_t at_ns = now_ns;
  for (const Brake* const brake : lane.brakes) {
    OrderTree::Sum others;
    for (const Lane* const other : brake->lanes) {
      if (other != &lane && may_take(*other, lane)) {
        const bool begins = higher || other->braked_turn < lane.braked_turn;
        others += started_meanwhile(*other, lane, at.priority, same, begins);
      }
    }
    at_ns = std::max(at_ns, brake->starts_ns(jobs + others.count, cost + others.cost, now_ns));
  }
  return static_cast<double>(at_ns - now_ns);
}

double Scheduler::Prediction::wait_for_slots(const Lane& lane, const OrderKey& at,
                                             int64_t now_ns) noexcept {
  const ServiceTime& service = service_of(lane);
  if (!service.known()) {
    return 0;
  }
  const Load own = load_before(lane, at, now_ns);
  const uint64_t ahead = uint64_t{own.own} + own.shared;
  double free = lane.capacity > lane.running ? lane.capacity - lane.running : 0;
  bool alone = true;
  double free_there = lane.device_slots_ - own.running;
  for (const Rival& rival : lane.rivals_) {
    const bool waits =
        head(*rival.lane) != nullptr || head(rival.lane->queue->any_model()) != nullptr;
    alone = alone && rival.lane->running == 0 && !(waits && may_take(*rival.lane, lane));
    free_there -= rival.part * rival.lane->running;
  }
  free = alone ? free : std::min(free, free_there);
  if (static_cast<double>(ahead) < free) {
    return 0;
  }
  const double fluid_ns = own.over(lane.last_capacity_);
  if (!alone) {
    return std::max(fluid_ns, wait_beside_rivals(lane, own, at.priority, now_ns));
  }
  if (own.own > kFewAhead || own.shared > 0 || lane.capacity > kFewSlots ||
      lane.running > lane.capacity || lane.capacity == 0) {
    return fluid_ns;
  }
  const double trust = service.certainty();
  return trust * wait_by_slots(lane, at, own.own, now_ns) + (1 - trust) * fluid_ns;
}

// The few jobs ahead are dealt to the slots in their order, each to the one that is free first.
// REQUIRES: `ahead`, the capacity and what runs are within the bounds above.
double Scheduler::Prediction::wait_by_slots(const Lane& lane, const OrderKey& at, uint32_t ahead,
                                            int64_t now_ns) noexcept {
  const ServiceTime& service = service_of(lane);
  std::array<uint32_t, kFewAhead> costs;
  uint32_t known = 0;
  const auto deal = [&](const OrderTree& line, uint32_t most) {
    known += line.first_costs(costs.data() + known, most);
  };
  if (at.priority <= kHighest) {
    deal(lane.promoted_, ahead);
    for (const auto& each : lane.classes_) {
      if (each->priority > at.priority) {
        deal(each->line, ahead - known);
      }
    }
  }
  deal(*Scheduler::ahead(lane, at).line, ahead - known);

  std::array<double, kFewSlots> free_at{};  // a heap, the first to be free at the front
  auto* const end = free_at.data() + lane.capacity;
  auto* slot = free_at.data();
  for (const Run* run = lane.runs_; run != nullptr; run = run->next) {
    const double work_ns = service.work_ns(1, run->cost);
    const auto age_ns = static_cast<double>(now_ns - run->started_ns);
    *slot++ = std::max(work_ns - age_ns, 0.1 * work_ns * (1 - service.certainty()));
  }
  std::make_heap(free_at.data(), end, std::greater<>());
  for (uint32_t i = 0; i < known; ++i) {
    std::pop_heap(free_at.data(), end, std::greater<>());
    *(end - 1) += service.work_ns(1, costs[i]);
    std::push_heap(free_at.data(), end, std::greater<>());
  }
  return free_at.front();
}

int64_t Scheduler::predicted_wait_ns(const Ticket& ticket, int64_t now_ns) const noexcept {
  if (ticket.state() == State::kScheduled) {
    return std::max<int64_t>(0, ticket.arrived_ns_ - now_ns);
  }
  const bool waits = ticket.state() == State::kWaiting || ticket.state() == State::kDelayed;
  return waits ? Prediction::wait_at(ticket.class_->lane, order_key(ticket), now_ns) : 0;
}

int64_t Scheduler::predicted_wait_ns(const Lane& lane, const Entry& entry,
                                     int64_t now_ns) const noexcept {
  const int64_t priority = std::min(entry.priority, kHighest);
  const Class* const same = find_class(lane, priority);
  const uint64_t tag = same != nullptr
                           ? same->share.next_start(lane.queue->owners_.find(entry.owner))
                           : virtual_time(lane, priority);
  return Prediction::wait_at(lane, {priority, {tag, UINT64_MAX}}, now_ns);
}

int64_t Scheduler::lowest_priority(const Lane& lane) noexcept {
  int64_t lowest = 0;
  each_competing(lane, [&](const Lane& each) {
    for (const auto& its : each.classes_) {
      lowest = std::min(lowest, its->share.empty() ? 0 : its->priority);
    }
  });
  return lowest;
}

int64_t Scheduler::predicted_wait_ns(const Lane& lane, int64_t now_ns) const noexcept {
  if (lane.all_hosts.shared) {
    return lane.all_hosts.wait_ns(lane.all_hosts.in_line + 1);
  }
  return Prediction::wait_at(lane, {lowest_priority(lane), {UINT64_MAX, UINT64_MAX}}, now_ns);
}

Scheduler::Foretold Scheduler::range_of(const WaitSpread& spread, const WaitSpread::Told& told,
                                        int64_t wait_ns) noexcept {
  const auto soon_ns = static_cast<int64_t>(spread.soon_ns(told));
  const auto late_ns = static_cast<int64_t>(spread.late_ns(told));
  return {std::clamp(wait_ns, std::min(soon_ns, late_ns), std::max(soon_ns, late_ns)),
          std::min(soon_ns, late_ns), std::max(soon_ns, late_ns), told};
}

Scheduler::Foretold Scheduler::range_of(const Lane& lane, int64_t wait_ns,
                                        int64_t priority) noexcept {
  const ServiceTime& service = service_of(lane);
  if (!service.known()) {
    return {wait_ns, wait_ns, wait_ns, {}};
  }
  const bool alone = lane.rivals_.empty();
  return range_of(lane.spread,
                  lane.spread.tell(static_cast<double>(wait_ns), std::max(service.mean_ns(), 1.0),
                                   service.spread(), service.seen(),
                                   std::max(1U, alone ? lane.last_capacity_ : lane.device_slots_),
                                   priority < lane.highest_taken_),
                  wait_ns);
}

Scheduler::Foretold Scheduler::foretell_at(const Lane& lane, uint32_t rank) noexcept {
  const AllHosts& all = lane.all_hosts;
  const int64_t wait_ns = all.wait_ns(rank);
  if (wait_ns == 0 || !all.known()) {
    return {wait_ns, wait_ns, wait_ns, {}};
  }
  return range_of(lane.spread,
                  lane.spread.tell(static_cast<double>(wait_ns), std::max(all.mean_ns, 1.0),
                                   all.spread, all.seen, all.slots, false),
                  wait_ns);
}

Scheduler::Foretold Scheduler::foretell(const Ticket& ticket, int64_t now_ns) const noexcept {
  const int64_t wait_ns = predicted_wait_ns(ticket, now_ns);
  const bool waits = ticket.state() == State::kWaiting || ticket.state() == State::kDelayed;
  return waits ? range_of(ticket.class_->lane, wait_ns, order_key(ticket).priority)
               : Foretold{wait_ns, wait_ns, wait_ns, {}};
}

Scheduler::Foretold Scheduler::foretell(const Lane& lane, int64_t now_ns) const noexcept {
  if (lane.all_hosts.shared) {
    return foretell_at(lane, lane.all_hosts.in_line + 1);
  }
  const int64_t wait_ns = predicted_wait_ns(lane, now_ns);
  return wait_ns == 0 ? Foretold{} : range_of(lane, wait_ns, lowest_priority(lane));
}

int64_t Scheduler::usual_ns(const Lane& lane, uint64_t cost) noexcept {
  constexpr double kMostNs = 1e18;
  const uint64_t counted = std::clamp<uint64_t>(cost, 1, FairShare::kMaxCost);
  const ServiceTime& service = service_of(lane);
  const double ns = !service.known() && lane.all_hosts.shared
                        ? lane.all_hosts.mean_ns
                        : service.work_ns(1, static_cast<double>(counted));
  return static_cast<int64_t>(std::min(ns, kMostNs));
}

int64_t Scheduler::expected_ns(const Ticket& ticket) noexcept {
  constexpr double kMostNs = 86'400e9;  // whatever a job says it costs
  const double ns = service_of(*ticket.run_->served_by).work_ns(1, ticket.run_->cost);
  return static_cast<int64_t>(std::min(ns, kMostNs));
}

int64_t Scheduler::remaining_ns(const Ticket& ticket, int64_t now_ns,
                                double progress) const noexcept {
  if (ticket.state() != State::kRunning) {
    return 0;
  }
  const ServiceTime& service = service_of(*ticket.run_->served_by);
  const auto age_ns = static_cast<double>(std::max<int64_t>(0, now_ns - ticket.run_->started_ns));
  const double usual_ns = service.remaining_ns(ticket.cost, age_ns);
  progress = progress > 0 ? std::min(progress, 1.0) : 0;
  const double seen_ns = progress > 0 ? age_ns * (1 - progress) / progress : 0;
  return static_cast<int64_t>(service.known() ? progress * seen_ns + (1 - progress) * usual_ns
                                              : seen_ns);
}

// What the job tells of itself is off by a tenth or so of what is left, what jobs take by its own
// spread.
Scheduler::Foretold Scheduler::foretell_end(const Ticket& ticket, int64_t now_ns,
                                            double progress) const noexcept {
  const int64_t left_ns = remaining_ns(ticket, now_ns, progress);
  if (ticket.state() != State::kRunning || !service_of(*ticket.run_->served_by).known()) {
    return {left_ns, left_ns, left_ns, {}};
  }
  constexpr double kSoon = 0.1;
  constexpr double kLate = 0.9;
  const ServiceTime& service = service_of(*ticket.run_->served_by);
  const auto age_ns = static_cast<double>(std::max<int64_t>(0, now_ns - ticket.run_->started_ns));
  const double part = progress > 0 ? std::min(progress, 1.0) : 0;
  const double seen_ns = part > 0 ? age_ns * (1 - part) / part : 0;
  const auto by = [&](double chance, double around) {
    const double usual_ns = service.done_by_ns(ticket.run_->cost, age_ns, chance) - age_ns;
    return static_cast<int64_t>(part * seen_ns * around + (1 - part) * usual_ns);
  };
  const int64_t soon_ns = by(kSoon, 1 - kSoon);
  const int64_t late_ns = by(kLate, 1 + kSoon);
  return {std::clamp(left_ns, soon_ns, late_ns), soon_ns, late_ns, {}};
}

}  // namespace penstock::queue
