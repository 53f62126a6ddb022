#include "worker/queue/scheduler.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <map>
#include <utility>

namespace penstock::queue {

using State = Scheduler::Ticket::State;

struct Scheduler::Class {
  int64_t priority = 0;
  uint32_t waiting = 0;  // delayed ones included
  FairShare share;
};

Scheduler::Lane::Lane() = default;
Scheduler::Lane::~Lane() = default;
Scheduler::Scheduler(uint64_t seed) : random_(seed) {}
Scheduler::~Scheduler() = default;

Scheduler::Queue& Scheduler::set_queue(const QueueSettings& settings) {
  Queue* queue = find_queue(settings.name);
  if (queue == nullptr) {
    queue = &queues_.emplace_back();
    queue->lanes.push_back(std::make_unique<Lane>());
    queue->lanes.front()->queue = queue;
  }
  queue->settings = settings;
  for (const auto& lane : queue->lanes) {
    if (lane->is_set()) {
      aging_.set(*lane, INT64_MIN);  // aging may have changed: it is looked at next
    }
  }
  return *queue;
}

Scheduler::Queue* Scheduler::find_queue(std::string_view name) noexcept {
  for (Queue& queue : queues_) {
    if (queue.settings.name == name) {
      return &queue;
    }
  }
  return nullptr;
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

bool Scheduler::full(const Queue& queue, uint64_t owner) noexcept {
  const uint32_t most = queue.settings.max_per_owner;
  if (most == 0) {
    return false;
  }
  const auto found = queue.owners_.find(owner);
  return found != queue.owners_.end() && found->second.waiting >= most;
}

Scheduler::Admission Scheduler::add(Ticket& ticket, Lane& lane, const Claim& claim,
                                    int64_t now_ns) {
  assert(ticket.state_ == State::kUnknown);
  Queue& queue = *lane.queue;
  if (!claim.force && full(queue)) {
    return Admission::kQueueFull;
  }
  if (!claim.force && full(queue, claim.owner)) {
    return Admission::kOwnerFull;
  }
  ticket.lane_ = &lane;
  ticket.owner_ = &queue.owners_[claim.owner];
  ticket.owner_->id = claim.owner;
  ++ticket.owner_->jobs;
  ++ticket.owner_->waiting;
  ++queue.waiting;
  ticket.cost = static_cast<uint32_t>(std::clamp<uint64_t>(claim.cost, 1, FairShare::kMaxCost));
  ticket.attempts_ = claim.attempts;
  ticket.arrived_ns_ = claim.arrived_ns != 0 ? claim.arrived_ns : now_ns;
  if (claim.not_before_ns != 0) {
    ticket.arrived_ns_ = std::max(ticket.arrived_ns_, claim.not_before_ns);
  }
  const int64_t deadline_ns = queue.settings.deadline_ns;
  ticket.deadline_ns_ = claim.deadline_ns != 0 ? claim.deadline_ns
                        : deadline_ns > 0      ? ticket.arrived_ns_ + deadline_ns
                                               : INT64_MAX;
  if (claim.not_before_ns > now_ns) {
    ++queue.scheduled;
    ticket.state_ = State::kScheduled;
    ticket.place = {claim.priority, claim.weight, 0};
    timers_.set(ticket, std::min(ticket.deadline_ns_, claim.not_before_ns));
  } else {
    line_up(ticket, claim.priority, claim.weight, now_ns);
  }
  return Admission::kAdded;
}

// A newcomer gets its place, and stands there.
void Scheduler::line_up(Ticket& ticket, int64_t priority, uint64_t weight, int64_t now_ns) {
  priority = std::min(priority, kHighest);
  ticket.class_ = &class_of(*ticket.lane_, priority);
  ticket.tags_ = ticket.class_->share.arrive(ticket.owner_->id, ticket.cost, weight);
  ticket.place = {priority, ticket.tags_.start, ++arrivals_};
  ++ticket.class_->waiting;
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
  Class& fresh = unused != lane.classes_.end()
                     ? **unused
                     : *lane.classes_.emplace_back(std::make_unique<Class>());
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
  Lane& lane = *ticket.lane_;
  ticket.state_ = State::kWaiting;
  lane.waiting_.insert(ticket);
  timers_.set(ticket, ticket.deadline_ns_);
  if (!lane.is_set() && lane.queue->settings.aging_ns > 0) {
    aging_.set(lane, now_ns + lane.queue->settings.aging_ns);
  }
}

Scheduler::Ticket* Scheduler::take(Lane& worker_lane, int64_t now_ns) noexcept {
  Queue& queue = *worker_lane.queue;
  OrderTree::Node* own = worker_lane.waiting_.first();
  OrderTree::Node* any = queue.any_model().waiting_.first();
  OrderTree::Node* next =
      own == nullptr || (any != nullptr && any->place.before(own->place)) ? any : own;
  if (next == nullptr || queue.paused) {
    return nullptr;
  }
  Ticket& ticket = ticket_of(*next);
  ticket.lane_->waiting_.erase(ticket);
  ticket.state_ = State::kRunning;
  ticket.started_ns_ = now_ns;
  ticket.served_by_ = &worker_lane;
  count_running(worker_lane, ticket, true);
  ticket.class_->share.take(ticket.tags_);
  // What competes with it has come as far, be it asked for by model or not.
  for (Lane* const lane : {&worker_lane, &queue.any_model()}) {
    lane->highest_taken_ = std::max(lane->highest_taken_, ticket.class_->priority);
    if (Class* const same = find_class(*lane, ticket.class_->priority); same != nullptr) {
      same->share.raise(ticket.tags_.start);
    }
  }
  ++queue.taken_;
  --queue.waiting;
  --ticket.owner_->waiting;
  --ticket.class_->waiting;
  return &ticket;
}

void Scheduler::count_running(Lane& lane, const Ticket& ticket, bool starts) noexcept {
  const auto started_ns = static_cast<uint64_t>(ticket.started_ns_);
  lane.running += starts ? 1U : -1U;
  lane.queue->running += starts ? 1U : -1U;
  lane.running_cost_ += starts ? ticket.cost : -uint64_t{ticket.cost};
  lane.started_ns_ += starts ? started_ns : -started_ns;
}

// Takes the ticket out of wherever it is; it keeps its place, its attempts and its tags.
void Scheduler::leave(Ticket& ticket) noexcept {
  Queue& queue = *ticket.lane_->queue;
  timers_.erase(ticket);
  if (ticket.state_ == State::kRunning) {
    count_running(*ticket.served_by_, ticket, false);
  } else {
    --queue.waiting;
    --ticket.owner_->waiting;
    if (ticket.state_ == State::kScheduled) {
      --queue.scheduled;
    } else {
      --ticket.class_->waiting;
      ticket.class_->share.withdraw(ticket.tags_);
    }
  }
  if (ticket.state_ == State::kWaiting) {
    ticket.lane_->waiting_.erase(ticket);
  }
  ticket.state_ = State::kUnknown;
}

// The ticket is over. REQUIRES: it has left.
void Scheduler::forget(Ticket& ticket) noexcept {
  if (ticket.class_ != nullptr) {
    std::exchange(ticket.class_, nullptr)->share.leave(ticket.tags_);
  }
  if (--ticket.owner_->jobs == 0) {
    ticket.lane_->queue->owners_.erase(ticket.owner_->id);
  }
}

void Scheduler::finish(Ticket& ticket, Outcome outcome, int64_t now_ns) noexcept {
  if (ticket.state_ == State::kUnknown) {
    return;
  }
  if (outcome == Outcome::kCompleted && ticket.state_ == State::kRunning) {
    const int64_t took_ns = now_ns - ticket.started_ns_;
    ticket.served_by_->service.observe(took_ns, ticket.cost);
    ticket.lane_->queue->any_model().service.observe(took_ns, ticket.cost);
  }
  leave(ticket);
  forget(ticket);
}

bool Scheduler::retry(Ticket& ticket, Cause cause, int64_t now_ns) {
  assert(ticket.state_ == State::kRunning);
  const QueueSettings& settings = ticket.lane_->queue->settings;
  leave(ticket);
  if (++ticket.attempts_ >= settings.attempts) {
    forget(ticket);
    return false;
  }
  come_back(ticket);
  const uint32_t waits = ticket.attempts_ - (cause == Cause::kWorkerLost ? 1 : 0);
  if (waits == 0 || settings.backoff_ns == 0) {
    wait(ticket, now_ns);
    return true;
  }
  const int64_t factor = int64_t{1} << std::min<uint32_t>(waits - 1, 20);
  const int64_t delay_ns = std::min(settings.backoff_ns, kMaxBackoffNs / factor) * factor;
  ticket.state_ = State::kDelayed;
  timers_.set(ticket, std::min(ticket.deadline_ns_, now_ns + with_jitter(delay_ns)));
  return true;
}

void Scheduler::requeue(Ticket& ticket, int64_t now_ns) {
  assert(ticket.state_ == State::kRunning);
  leave(ticket);
  come_back(ticket);
  wait(ticket, now_ns);
}

// What ran waits again, or will.
void Scheduler::come_back(Ticket& ticket) noexcept {
  ++ticket.lane_->queue->waiting;
  ++ticket.owner_->waiting;
  ++ticket.class_->waiting;
  ticket.class_->share.come_back(ticket.tags_);
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
  while (timers_.next_ns() <= now_ns) {
    Ticket& ticket = ticket_of(*timers_.first());
    if (ticket.deadline_ns_ <= now_ns) {
      expired.push_back({&ticket, ticket.state_ == State::kRunning});
      leave(ticket);
      forget(ticket);
    } else if (ticket.state_ == State::kScheduled) {
      --ticket.lane_->queue->scheduled;
      line_up(ticket, ticket.place.priority, ticket.place.tag, now_ns);
    } else {
      wait(ticket, now_ns);
    }
  }
  while (aging_.next_ns() <= now_ns) {
    age(static_cast<Lane&>(*aging_.first()), now_ns);
  }
}

// Looks at the lane, and says when to look again: never, once nobody waits; wait() sees to it.
void Scheduler::age(Lane& lane, int64_t now_ns) {
  if (lane.waiting_.size() == 0 || lane.queue->settings.aging_ns <= 0) {
    aging_.erase(lane);
  } else {
    aging_.set(lane, std::max(promote_one(lane, now_ns), now_ns + 1));
  }
}

int64_t Scheduler::promote_one(Lane& lane, int64_t now_ns) {
  const Queue& queue = *lane.queue;
  int64_t top = std::exchange(lane.highest_taken_, INT64_MIN);
  const int64_t later_ns = now_ns + queue.settings.aging_ns;
  if (queue.paused || lane.waiting_.first()->place.priority > kHighest ||
      queue.taken_ - lane.promoted_at_ < kTakesPerPromotion) {
    return later_ns;
  }
  each_competing(lane, [&](const Lane& each) {
    const OrderTree::Node* const first = each.waiting_.first_from({kHighest, 0, 0});
    top = std::max(top, first != nullptr ? first->place.priority : INT64_MIN);
  });
  Ticket* oldest = nullptr;
  while (top > INT64_MIN) {
    OrderTree::Node* const head = lane.waiting_.first_from({top - 1, 0, 0});
    if (head == nullptr) {
      break;
    }
    Ticket& ticket = ticket_of(*head);
    oldest = oldest == nullptr || ticket.arrived_ns_ < oldest->arrived_ns_ ? &ticket : oldest;
    top = head->place.priority;
  }
  if (oldest == nullptr) {
    return later_ns;
  }
  const int64_t due_ns = oldest->arrived_ns_ + queue.settings.aging_ns;
  if (due_ns > now_ns) {
    return due_ns;
  }
  lane.waiting_.erase(*oldest);
  oldest->place.priority = kHighest + 1;
  oldest->place.tag = 0;
  lane.waiting_.insert(*oldest);
  lane.promoted_at_ = queue.taken_;
  return later_ns;
}

int64_t Scheduler::next_event() const noexcept {
  return std::min(timers_.next_ns(), aging_.next_ns());
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

int64_t Scheduler::priority_of(const Ticket& ticket) noexcept { return ticket.class_->priority; }

uint32_t Scheduler::position(const Ticket& ticket) const noexcept {
  if (ticket.state_ != State::kWaiting && ticket.state_ != State::kDelayed) {
    return 0;
  }
  uint32_t ahead = 0;
  each_competing(*ticket.lane_,
                 [&](const Lane& lane) { ahead += lane.waiting_.before(ticket.place).count; });
  return ahead + 1;
}

// A job that names a model waits for that model's workers; one that names none, for the first of
// any's: nobody need be there, but those that are count before those that are not.
int64_t Scheduler::wait_at(const Lane& lane, const Place& place, int64_t now_ns) noexcept {
  if (!lane.is_any()) {
    return static_cast<int64_t>(wait_in(lane, place, now_ns));
  }
  double least_ns = -1;
  for (const auto& each : lane.queue->lanes) {
    const bool serves = lane.capacity == 0 || each->capacity > 0;
    if (each.get() != &lane && serves) {
      const double wait_ns = wait_in(*each, place, now_ns);
      least_ns = least_ns < 0 ? wait_ns : std::min(least_ns, wait_ns);
    }
  }
  return static_cast<int64_t>(std::max(0.0, least_ns));
}

// At the moment the job starts, one slot has just become free, and each other is in the midst of a
// job. So until then the slots do all the work that is before it and all that they have begun, but
// for what those others still need.
double Scheduler::wait_in(const Lane& lane, const Place& place, int64_t now_ns) noexcept {
  const Lane& any = lane.queue->any_model();
  const OrderTree::Sum own = lane.waiting_.before(place);
  const OrderTree::Sum shared = any.waiting_.before(place);
  const uint32_t free = lane.capacity > lane.running ? lane.capacity - lane.running : 0;
  const ServiceTime& service = lane.service.known() ? lane.service : any.service;
  if (!service.known() || uint64_t{own.count} + shared.count < free) {
    return 0;
  }
  const double slots = lane.last_capacity_;
  const double share = std::min(1.0, slots / any.last_capacity_);  // of jobs that name no model
  const double ahead = own.count + share * shared.count;
  const auto now = static_cast<uint64_t>(now_ns);
  const auto age_ns = static_cast<int64_t>(lane.running * now - lane.started_ns_);
  const double work_ns =
      service.work_ns(own.count, static_cast<double>(own.cost)) +
      share * any.service.work_ns(shared.count, static_cast<double>(shared.cost)) +
      service.left_ns(lane.running, static_cast<double>(lane.running_cost_),
                      static_cast<double>(std::max<int64_t>(0, age_ns)));
  const double others = std::min(slots - 1, lane.running + ahead);
  return std::max(0.0, work_ns - others * service.residual_ns()) / slots;
}

int64_t Scheduler::predicted_wait_ns(const Ticket& ticket, int64_t now_ns) const noexcept {
  if (ticket.state_ == State::kScheduled) {
    return std::max<int64_t>(0, ticket.arrived_ns_ - now_ns);
  }
  const bool waits = ticket.state_ == State::kWaiting || ticket.state_ == State::kDelayed;
  return waits ? wait_at(*ticket.lane_, ticket.place, now_ns) : 0;
}

int64_t Scheduler::predicted_wait_ns(const Lane& lane, const Claim& claim,
                                     int64_t now_ns) const noexcept {
  const int64_t priority = std::min(claim.priority, kHighest);
  const Class* const same = find_class(lane, priority);
  const uint64_t tag =
      same != nullptr ? same->share.next_start(claim.owner) : virtual_time(lane, priority);
  return wait_at(lane, {priority, tag, UINT64_MAX}, now_ns);
}

int64_t Scheduler::predicted_wait_ns(const Lane& lane, int64_t now_ns) const noexcept {
  return wait_at(lane, {INT64_MIN, UINT64_MAX, UINT64_MAX}, now_ns);
}

int64_t Scheduler::remaining_ns(const Ticket& ticket, int64_t now_ns,
                                double progress) const noexcept {
  if (ticket.state_ != State::kRunning) {
    return 0;
  }
  const Lane& lane = *ticket.served_by_;
  const ServiceTime& service =
      lane.service.known() ? lane.service : lane.queue->any_model().service;
  const auto age_ns = static_cast<double>(std::max<int64_t>(0, now_ns - ticket.started_ns_));
  const double usual_ns = service.remaining_ns(ticket.cost, age_ns);
  progress = progress > 0 ? std::min(progress, 1.0) : 0;
  const double seen_ns = progress > 0 ? age_ns * (1 - progress) / progress : 0;
  return static_cast<int64_t>(service.known() ? progress * seen_ns + (1 - progress) * usual_ns
                                              : seen_ns);
}

int64_t Scheduler::oldest_wait_ns(const Queue& queue, int64_t now_ns) noexcept {
  int64_t oldest_ns = now_ns;
  for (const auto& lane : queue.lanes) {
    const OrderTree::Node* head = lane->waiting_.first();
    while (head != nullptr) {
      oldest_ns = std::min(oldest_ns, static_cast<const Ticket&>(*head).arrived_ns_);
      head = head->place.priority == INT64_MIN
                 ? nullptr
                 : lane->waiting_.first_from({head->place.priority - 1, 0, 0});
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
