#include "worker/queue/order/scheduler.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "worker/queue/order/backoff.h"
#include "worker/queue/order/lanes.h"

namespace penstock::queue {

using State = Scheduler::Ticket::State;

static_assert(sizeof(Scheduler::Ticket) == 64);

int64_t Scheduler::Ticket::started_ns() const noexcept {
  return state() == State::kRunning ? run_->started_ns : 0;
}

Scheduler::Lane* Scheduler::Ticket::lane() const noexcept {
  return state() == State::kUnknown     ? nullptr
         : state() == State::kScheduled ? lane_
                                        : &its_class().lane;
}

Owner& Scheduler::Ticket::owner() const noexcept {
  return state() == State::kScheduled ? *owner_ : flow_->owner();
}

Scheduler::Lane::Lane() = default;
Scheduler::Lane::~Lane() = default;
Scheduler::Scheduler(uint64_t seed) : random_(seed) {}
Scheduler::~Scheduler() = default;

Scheduler::Admission Scheduler::add(Ticket& ticket, Lane& lane, const Entry& entry,
                                    int64_t now_ns) {
  assert(ticket.state() == State::kUnknown);
  Queue& queue = *lane.queue;
  if (!entry.force && full(queue)) {
    return Admission::kQueueFull;
  }
  if (!entry.force && full(queue, entry.owner)) {
    return Admission::kOwnerFull;
  }
  Owner& owner = queue.owners_[entry.owner];
  queue.with_jobs_ += owner.jobs++ == 0 ? 1 : 0;
  ++queue.waiting;
  ticket.cost = static_cast<uint32_t>(std::clamp<uint64_t>(entry.cost, 1, FairShare::kMaxCost));
  ticket.attempts_ = std::min(entry.attempts, kMaxAttempts);
  ticket.promoted_ = false;
  ticket.arrived_ns_ = entry.arrived_ns != 0 ? entry.arrived_ns : now_ns;
  if (entry.not_before_ns != 0) {
    ticket.arrived_ns_ = std::max(ticket.arrived_ns_, entry.not_before_ns);
  }
  const int64_t deadline_ns = queue.settings.deadline_ns;
  ticket.deadline_ns_ = entry.deadline_ns != 0 ? entry.deadline_ns
                        : deadline_ns > 0      ? ticket.arrived_ns_ + deadline_ns
                                               : INT64_MAX;
  const int64_t priority = std::min(entry.priority, kHighest);
  const uint64_t weight = std::clamp<uint64_t>(entry.weight, 1, FairShare::kMaxWeight);
  if (entry.not_before_ns <= now_ns) {
    line_up(ticket, lane, owner, priority, weight, now_ns);
    watch_deadline(ticket);
    return Admission::kAdded;
  }
  ticket.state(State::kScheduled);
  ticket.lane_ = &lane;
  ticket.owner_ = &owner;
  ticket.place = {static_cast<uint64_t>(priority), 0};
  ticket.span_ = weight;
  ++owner.scheduled;
  ++queue.scheduled;
  timers_.set(ticket, std::min(ticket.deadline_ns_, entry.not_before_ns));
  return Admission::kAdded;
}

void Scheduler::reschedule(Ticket& ticket, int64_t due_ns) {
  assert(ticket.state() == State::kScheduled);
  const int64_t later_ns = due_ns - std::exchange(ticket.arrived_ns_, due_ns);
  ticket.deadline_ns_ += ticket.deadline_ns_ == INT64_MAX ? 0 : later_ns;
  timers_.set(ticket, std::min(ticket.deadline_ns_, due_ns));
}

// A newcomer gets its place, and stands there.
void Scheduler::line_up(Ticket& ticket, Lane& lane, Owner& owner, int64_t priority, uint64_t weight,
                        int64_t now_ns) {
  Class& its = class_of(lane, priority);
  const FairShare::Tags tags = its.share.arrive(owner, ticket.cost, weight);
  ticket.class_ = &its;
  ticket.flow_ = tags.flow;
  ticket.place = {tags.start, ++arrivals_};
  ticket.span_ = tags.end - tags.start;
  ++its.waiting;
  if (lane.queue->has_rivals_) {
    lane.arriving_.add(service_of(lane).work_ns(1, ticket.cost), now_ns);
  }
  wait(ticket, now_ns);
}

Scheduler::Class* Scheduler::find_class(const Lane& lane, int64_t priority) noexcept {
  for (const auto& each : lane.classes_) {
    if (each->priority == priority && !each->share.empty()) {
      return each.get();
    }
  }
  return nullptr;
}

Scheduler::Class& Scheduler::class_of(Lane& lane, int64_t priority) {
  if (Class* const known = find_class(lane, priority); known != nullptr) {
    return *known;
  }
  const auto unused = std::find_if(lane.classes_.begin(), lane.classes_.end(),
                                   [](const auto& each) { return each->share.empty(); });
  Class& fresh =
      unused != lane.classes_.end()
          ? **unused
          : *lane.classes_.emplace_back(std::make_unique<Class>(lane, lane.queue->owners_));
  const uint64_t begin = virtual_time(lane, priority);
  fresh.priority = priority;
  fresh.share.raise(begin);
  return fresh;
}

// Where a class begins: with those it competes with, for their tags will be compared.
uint64_t Scheduler::virtual_time(const Lane& lane, int64_t priority) noexcept {
  uint64_t latest = 0;
  each_competing(lane, [&](const Lane& each) {
    if (const Class* const known = find_class(each, priority); known != nullptr) {
      latest = std::max(latest, known->share.virtual_time());
    }
  });
  return latest;
}

// Stands in line, at the ticket's own place. Whatever counts it was taken care of.
void Scheduler::wait(Ticket& ticket, int64_t now_ns) {
  ticket.state(State::kWaiting);
  Lane& lane = ticket.class_->lane;
  line_of(ticket).insert(ticket);
  if (!lane.is_set() && lane.queue->settings.aging_ns > 0) {
    aging_.set(lane, now_ns + lane.queue->settings.aging_ns);
  }
}

// REQUIRES: the ticket waits, and no timer is set for it, unless it is in the heap.
void Scheduler::watch_deadline(Ticket& ticket) {
  TimerRing<Ticket>& ring = ticket.lane()->queue->deadlines_;
  if (!ticket.is_set() && ring.takes(ticket.deadline_ns_)) {
    ring.push(ticket);
  } else {
    timers_.set(ticket, ticket.deadline_ns_);
  }
}

void Scheduler::set_deadline(Ticket& ticket, int64_t deadline_ns) {
  assert(ticket.state() == State::kRunning);
  unwatch(ticket);
  ticket.deadline_ns_ = deadline_ns;
  watch_deadline(ticket);
}

void Scheduler::unwatch(Ticket& ticket) noexcept {
  if (TimerRing<Ticket>::has(ticket)) {
    ticket.lane()->queue->deadlines_.erase(ticket);
  } else {
    timers_.erase(ticket);
  }
}

// Of its jobs and of those that name no model.
Scheduler::Ticket* Scheduler::first(const Lane& worker_lane) noexcept {
  const Queue& queue = *worker_lane.queue;
  if (queue.paused) {
    return nullptr;
  }
  Ticket* const own = head(worker_lane);
  Ticket* const any = head(*queue.lanes.front());
  return any != nullptr && (own == nullptr || order_key(*any).before(order_key(*own))) ? any : own;
}

Scheduler::Ticket* Scheduler::take(Lane& worker_lane, int64_t now_ns) noexcept {
  Ticket* const next = first(worker_lane);
  if (next == nullptr) {
    return nullptr;
  }
  OrderTree& line = line_of(*next);
  line.erase(*next);
  ask_for_next(line);
  begin(*next, worker_lane, now_ns);
  return next;
}

void Scheduler::take(Ticket& ticket, Lane& worker_lane, int64_t now_ns) noexcept {
  assert(ticket.state() == State::kDelayed);
  begin(ticket, worker_lane, now_ns);
}

// REQUIRES: it stands in no line.
void Scheduler::begin(Ticket& ticket, Lane& worker_lane, int64_t now_ns) noexcept {
  Queue& queue = *worker_lane.queue;
  Class& its = *ticket.class_;
  const FairShare::Tags tags = ticket.tags();
  if (unused_runs_.empty()) {
    unused_runs_.push_back(&runs_.emplace_back());
  }
  ticket.state(State::kRunning);
  ticket.run_ = unused_runs_.back();
  unused_runs_.pop_back();
  *ticket.run_ = {&its, &worker_lane, now_ns, ticket.cost};
  count_running(*ticket.run_, true);
  its.share.take(tags);
  its.lane.spread.started();
  // What competes with it has come as far, be it asked for by model or not.
  for (Lane* const lane : {&worker_lane, &queue.any_model()}) {
    lane->highest_taken_ = std::max(lane->highest_taken_, its.priority);
    if (Class* const same = find_class(*lane, its.priority); same != nullptr) {
      same->share.raise(tags.start);
    }
  }
  ++queue.taken_;
  --queue.waiting;
  --its.waiting;
}

// Of a million tickets, which is next is not in the cache; it will be by the next take().
void Scheduler::ask_for_next(const OrderTree& line) noexcept {
  constexpr uint32_t kAfterNext = 2;
  if (OrderTree::Node* const next = line.first(); next != nullptr) {
    __builtin_prefetch(line.soon(kAfterNext));
    __builtin_prefetch(ticket_of(*next).flow_);  // the ticket was asked for some takes ago
  }
}

void Scheduler::count_running(Run& run, bool starts) noexcept {
  Lane& lane = *run.served_by;
  const auto started_ns = static_cast<uint64_t>(run.started_ns);
  lane.running += starts ? 1U : -1U;
  lane.queue->running += starts ? 1U : -1U;
  lane.running_cost_ += starts ? run.cost : -uint64_t{run.cost};
  lane.started_ns_ += starts ? started_ns : -started_ns;
  if (starts) {
    run.next = lane.runs_;
  }
  if (run.next != nullptr) {
    run.next->last = starts ? &run : run.last;
  }
  (run.last == nullptr ? lane.runs_ : run.last->next) = starts ? &run : run.next;
}

void Scheduler::stop_running(Ticket& ticket) noexcept {
  Run& run = *ticket.run_;
  count_running(run, false);
  ticket.class_ = run.of;
  ticket.state(State::kDelayed);
  unused_runs_.push_back(&run);
}

// The ticket is over, wherever it is.
void Scheduler::drop(Ticket& ticket) noexcept {
  unwatch(ticket);
  Queue& queue = *ticket.lane()->queue;
  const State was = ticket.state();
  Owner& owner = ticket.owner();
  queue.with_jobs_ -= --owner.jobs == 0 ? 1 : 0;
  queue.waiting -= was == State::kRunning ? 0 : 1;
  if (was == State::kScheduled) {
    --queue.scheduled;
    --owner.scheduled;
    queue.owners_.release(owner);
  } else if (was == State::kRunning) {
    stop_running(ticket);
  } else {
    if (was == State::kWaiting) {
      line_of(ticket).erase(ticket);
    }
    --ticket.class_->waiting;
    ticket.class_->share.withdraw(ticket.tags());
  }
  if (was != State::kScheduled) {
    ticket.class_->share.leave(ticket.tags());
  }
  ticket.state(State::kUnknown);
}

void Scheduler::finish(Ticket& ticket, Outcome outcome, int64_t now_ns) noexcept {
  if (ticket.state() == State::kUnknown) {
    return;
  }
  if (outcome == Outcome::kCompleted && ticket.state() == State::kRunning) {
    Lane& served_by = *ticket.run_->served_by;
    const int64_t took_ns = now_ns - ticket.run_->started_ns;
    served_by.service.observe(took_ns, ticket.cost);
    served_by.queue->any_model().service.observe(took_ns, ticket.cost);
  }
  drop(ticket);
}

bool Scheduler::retry(Ticket& ticket, Cause cause, int64_t now_ns) {
  assert(ticket.state() == State::kRunning);
  const QueueSettings& settings = ticket.lane()->queue->settings;
  const uint32_t attempts = ticket.attempts() + 1;
  if (attempts >= std::min(settings.attempts, kMaxAttempts)) {
    ticket.attempts_ = std::min(attempts, kMaxAttempts);
    drop(ticket);
    return false;
  }
  ticket.attempts_ = attempts;
  come_back(ticket);
  if (cause == Cause::kWorkerLostAlone) {
    return true;
  }
  const uint32_t waits = attempts - (cause == Cause::kWorkerLost ? 1 : 0);
  if (waits == 0 || settings.backoff_ns == 0) {
    wait(ticket, now_ns);
    return true;
  }
  const int64_t factor = int64_t{1} << std::min<uint32_t>(waits - 1, 20);
  const int64_t delay_ns = std::min(settings.backoff_ns, kMaxBackoffNs / factor) * factor;
  unwatch(ticket);
  timers_.set(ticket, std::min(ticket.deadline_ns_, now_ns + with_jitter(delay_ns, random_)));
  return true;
}

void Scheduler::requeue(Ticket& ticket, int64_t now_ns) {
  assert(ticket.state() == State::kRunning);
  come_back(ticket);
  wait(ticket, now_ns);
}

void Scheduler::postpone(Ticket& ticket, int64_t until_ns) {
  assert(ticket.state() == State::kRunning);
  come_back(ticket);
  unwatch(ticket);
  timers_.set(ticket, std::min(ticket.deadline_ns_, until_ns));
}

// What ran is delayed.
void Scheduler::come_back(Ticket& ticket) noexcept {
  stop_running(ticket);
  ++ticket.class_->lane.queue->waiting;
  ++ticket.class_->waiting;
  ticket.class_->share.come_back(ticket.tags());
}

void Scheduler::advance_to(int64_t now_ns, std::vector<Expired>& expired) {
  while (Ticket* const due = first_due(now_ns)) {
    Ticket& ticket = *due;
    if (ticket.deadline_ns_ <= now_ns) {
      expired.push_back(
          {&ticket, ticket.state() == State::kRunning, ticket.lane(), owner_of(ticket)});
      drop(ticket);
      continue;
    }
    timers_.erase(ticket);
    if (ticket.state() == State::kScheduled) {
      Owner& owner = *ticket.owner_;
      --owner.scheduled;
      --ticket.lane_->queue->scheduled;
      line_up(ticket, *ticket.lane_, owner, static_cast<int64_t>(ticket.place.tag), ticket.span_,
              now_ns);
    } else {
      wait(ticket, now_ns);
    }
    watch_deadline(ticket);
  }
  while (aging_.next_ns() <= now_ns) {
    age(static_cast<Lane&>(*aging_.first()), now_ns);
  }
}

// The ticket whose time came first, nullptr when none's has.
Scheduler::Ticket* Scheduler::first_due(int64_t now_ns) noexcept {
  int64_t least_ns = timers_.next_ns();
  Ticket* first = timers_.size() > 0 ? &ticket_of(*timers_.first()) : nullptr;
  for (const Queue& queue : queues_) {
    if (queue.deadlines_.next_ns() < least_ns) {
      least_ns = queue.deadlines_.next_ns();
      first = queue.deadlines_.first();
    }
  }
  return least_ns <= now_ns ? first : nullptr;
}

int64_t Scheduler::next_event() const noexcept {
  int64_t next_ns = std::min(timers_.next_ns(), aging_.next_ns());
  for (const Queue& queue : queues_) {
    next_ns = std::min(next_ns, queue.deadlines_.next_ns());
  }
  return next_ns;
}

int64_t Scheduler::priority_of(const Ticket& ticket) noexcept {
  return ticket.its_class().priority;
}

int64_t Scheduler::rank_of(const Ticket& ticket) noexcept { return order_key(ticket).priority; }

uint32_t Scheduler::position(const Ticket& ticket) const noexcept {
  if (ticket.state() != State::kWaiting && ticket.state() != State::kDelayed) {
    return 0;
  }
  const OrderKey at = order_key(ticket);
  uint32_t before = 0;
  each_competing(ticket.class_->lane, [&](const Lane& lane) {
    const WorkAhead there = ahead(lane, at);
    before += there.lines.count + there.line->rank(at.place);
  });
  return before + 1;
}

uint32_t Scheduler::ahead_by_class(const Ticket& ticket) const noexcept {
  if (ticket.state() != State::kWaiting && ticket.state() != State::kDelayed) {
    return 0;
  }
  const OrderKey at = order_key(ticket);
  uint32_t before = 0;
  each_competing(ticket.class_->lane,
                 [&](const Lane& lane) { before += ahead(lane, at).lines.count; });
  return before;
}

}  // namespace penstock::queue
