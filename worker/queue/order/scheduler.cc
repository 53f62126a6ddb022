#include "worker/queue/order/scheduler.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <functional>
#include <map>
#include <utility>

namespace penstock::queue {

using State = Scheduler::Ticket::State;

namespace {
const OrderTree kNobody;
}

struct Scheduler::Class {
  Class(Lane& its_lane, Owners& owners) : lane(its_lane), share(owners) {}
  Lane& lane;
  int64_t priority = 0;
  uint32_t waiting = 0;  // delayed ones included
  OrderTree line;        // of those that may be taken, and are not promoted
  FairShare share;
};

static_assert(sizeof(Scheduler::Ticket) == 64);

int64_t Scheduler::Ticket::started_ns() const noexcept {
  return state() == State::kRunning ? run_->started_ns : 0;
}

Scheduler::Lane* Scheduler::Ticket::lane() const noexcept {
  return state() == State::kUnknown     ? nullptr
         : state() == State::kScheduled ? lane_
                                        : &its_class().lane;
}

// REQUIRES: it is waiting, delayed or running.
Scheduler::Class& Scheduler::Ticket::its_class() const noexcept {
  return state() == State::kRunning ? *run_->of : *class_;
}

FairShare::Tags Scheduler::Ticket::tags() const noexcept {
  const uint64_t start = promoted_ ? place.arrival : place.tag;
  return {flow_, start, start + span_};
}

Scheduler::Lane::Lane() = default;
Scheduler::Lane::~Lane() = default;
Scheduler::Scheduler(uint64_t seed) : random_(seed) {}
Scheduler::~Scheduler() = default;

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

Scheduler::Admission Scheduler::add(Ticket& ticket, Lane& lane, const Claim& claim,
                                    int64_t now_ns) {
  assert(ticket.state() == State::kUnknown);
  Queue& queue = *lane.queue;
  if (!claim.force && full(queue)) {
    return Admission::kQueueFull;
  }
  if (!claim.force && full(queue, claim.owner)) {
    return Admission::kOwnerFull;
  }
  Owner& owner = queue.owners_[claim.owner];
  queue.with_jobs_ += owner.jobs++ == 0 ? 1 : 0;
  ++queue.waiting;
  ticket.cost = static_cast<uint32_t>(std::clamp<uint64_t>(claim.cost, 1, FairShare::kMaxCost));
  ticket.attempts_ = std::min(claim.attempts, kMaxAttempts);
  ticket.promoted_ = false;
  ticket.arrived_ns_ = claim.arrived_ns != 0 ? claim.arrived_ns : now_ns;
  if (claim.not_before_ns != 0) {
    ticket.arrived_ns_ = std::max(ticket.arrived_ns_, claim.not_before_ns);
  }
  const int64_t deadline_ns = queue.settings.deadline_ns;
  ticket.deadline_ns_ = claim.deadline_ns != 0 ? claim.deadline_ns
                        : deadline_ns > 0      ? ticket.arrived_ns_ + deadline_ns
                                               : INT64_MAX;
  const int64_t priority = std::min(claim.priority, kHighest);
  const uint64_t weight = std::clamp<uint64_t>(claim.weight, 1, FairShare::kMaxWeight);
  if (claim.not_before_ns <= now_ns) {
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
  timers_.set(ticket, std::min(ticket.deadline_ns_, claim.not_before_ns));
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

OrderTree& Scheduler::line_of(const Ticket& ticket) noexcept {
  Class& its = ticket.its_class();
  return ticket.promoted_ ? its.lane.promoted_ : its.line;
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

void Scheduler::unwatch(Ticket& ticket) noexcept {
  if (TimerRing<Ticket>::has(ticket)) {
    ticket.lane()->queue->deadlines_.erase(ticket);
  } else {
    timers_.erase(ticket);
  }
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

Scheduler::Standing Scheduler::standing(const Ticket& ticket) noexcept {
  return {ticket.promoted_ ? kHighest + 1 : ticket.its_class().priority, ticket.place};
}

// Of its jobs and of those that name no model.
Scheduler::Ticket* Scheduler::first(const Lane& worker_lane) noexcept {
  const Queue& queue = *worker_lane.queue;
  if (queue.paused) {
    return nullptr;
  }
  Ticket* const own = head(worker_lane);
  Ticket* const any = head(*queue.lanes.front());
  return any != nullptr && (own == nullptr || standing(*any).before(standing(*own))) ? any : own;
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
  Owner& owner = was == State::kScheduled ? *ticket.owner_ : ticket.flow_->owner();
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
  timers_.set(ticket, std::min(ticket.deadline_ns_, now_ns + with_jitter(delay_ns)));
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

// Half of it and a random part of the other half: jobs that failed together do not come back
// together ("equal jitter"; M. Brooker, "Exponential Backoff And Jitter", 2015). The numbers are
// SplitMix64's (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators",
// 2014).
int64_t Scheduler::with_jitter(int64_t delay_ns) noexcept {
  uint64_t r = random_ += 0x9e3779b97f4a7c15;
  r = (r ^ (r >> 30)) * 0xbf58476d1ce4e5b9;
  r = (r ^ (r >> 27)) * 0x94d049bb133111eb;
  r ^= r >> 31;
  const int64_t half_ns = delay_ns / 2;
  return delay_ns - half_ns + static_cast<int64_t>(r % static_cast<uint64_t>(half_ns + 1));
}

void Scheduler::advance_to(int64_t now_ns, std::vector<Expired>& expired) {
  while (Ticket* const due = first_due(now_ns)) {
    Ticket& ticket = *due;
    if (ticket.deadline_ns_ <= now_ns) {
      expired.push_back({&ticket, ticket.state() == State::kRunning, ticket.lane()});
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
                                          : standing(a).before(standing(b));
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

int64_t Scheduler::next_event() const noexcept {
  int64_t next_ns = std::min(timers_.next_ns(), aging_.next_ns());
  for (const Queue& queue : queues_) {
    next_ns = std::min(next_ns, queue.deadlines_.next_ns());
  }
  return next_ns;
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

int64_t Scheduler::priority_of(const Ticket& ticket) noexcept {
  return ticket.its_class().priority;
}

// Without a branch, as nobody can guess in which class the next one asked for is.
Scheduler::Ahead Scheduler::ahead(const Lane& lane, const Standing& at) noexcept {
  if (at.priority > kHighest) {
    return {{}, &lane.promoted_};
  }
  Ahead ahead{lane.promoted_.total(), &kNobody};
  for (const auto& each : lane.classes_) {
    const bool higher = each->priority > at.priority;
    const bool same = each->priority == at.priority && each->line.size() > 0;
    ahead.lines.count += higher ? each->line.total().count : 0;
    ahead.lines.cost += higher ? each->line.total().cost : 0;
    ahead.line = same ? &each->line : ahead.line;
  }
  return ahead;
}

uint32_t Scheduler::position(const Ticket& ticket) const noexcept {
  if (ticket.state() != State::kWaiting && ticket.state() != State::kDelayed) {
    return 0;
  }
  const Standing at = standing(ticket);
  uint32_t before = 0;
  each_competing(ticket.class_->lane, [&](const Lane& lane) {
    const Ahead there = ahead(lane, at);
    before += there.lines.count + there.line->rank(at.place);
  });
  return before + 1;
}

// A job that names a model waits for that model's workers; one that names none, for the first of
// any's: nobody need be there, but those that are count before those that are not.
int64_t Scheduler::wait_at(const Lane& lane, const Standing& at, int64_t now_ns) noexcept {
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

const ServiceTime& Scheduler::service_of(const Lane& lane) noexcept {
  return lane.service.known() ? lane.service : lane.queue->any_model().service;
}

void Scheduler::Load::add(const Load& other, double part) noexcept {
  running += part * other.running;
  waiting += part * other.waiting;
  ns += part * other.ns;
  residual_ns += part * other.residual_ns;
}

// At the moment the job starts, one slot has just become free, and each other is in the midst of a
// job. So until then the slots do all the work that is before it and all that they have begun, but
// for what those others still need.
double Scheduler::Load::begun_by_others_ns(double slots) const noexcept {
  const double jobs = running + waiting;
  return jobs > 0 ? std::min(slots - 1, jobs) * residual_ns / jobs : 0;
}

double Scheduler::Load::over(double slots) const noexcept {
  return std::max(0.0, ns - begun_by_others_ns(slots)) / slots;
}

// Of jobs that name no model, its workers take their part.
double Scheduler::share_of(const Lane& lane) noexcept {
  const double all = lane.queue->any_model().last_capacity_;
  return std::min(1.0, lane.last_capacity_ / all);
}

Scheduler::Load Scheduler::load_before(const Lane& lane, const Standing& at,
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
    load.ns += work_ns;
    return work_ns;
  };
  const Ahead own = ahead(lane, at);
  const Ahead shared = ahead(any, at);
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
double Scheduler::wait_beside_rivals(const Lane& lane, const Load& own, int64_t priority,
                                     int64_t now_ns) noexcept {
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
    const Standing at = goes_on ? Standing{priority, {UINT64_MAX, UINT64_MAX}}
                                : Standing{INT64_MAX, {0, 0}};  // before all that wait
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

double Scheduler::wait_in(const Lane& lane, const Standing& at, int64_t now_ns) noexcept {
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
double Scheduler::wait_by_slots(const Lane& lane, const Standing& at, uint32_t ahead,
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
  return waits ? wait_at(ticket.class_->lane, standing(ticket), now_ns) : 0;
}

int64_t Scheduler::predicted_wait_ns(const Lane& lane, const Claim& claim,
                                     int64_t now_ns) const noexcept {
  const int64_t priority = std::min(claim.priority, kHighest);
  const Class* const same = find_class(lane, priority);
  const uint64_t tag = same != nullptr
                           ? same->share.next_start(lane.queue->owners_.find(claim.owner))
                           : virtual_time(lane, priority);
  return wait_at(lane, {priority, {tag, UINT64_MAX}}, now_ns);
}

int64_t Scheduler::predicted_wait_ns(const Lane& lane, int64_t now_ns) const noexcept {
  int64_t lowest = 0;
  each_competing(lane, [&](const Lane& each) {
    for (const auto& its : each.classes_) {
      lowest = std::min(lowest, its->share.empty() ? 0 : its->priority);
    }
  });
  return wait_at(lane, {lowest, {UINT64_MAX, UINT64_MAX}}, now_ns);
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
