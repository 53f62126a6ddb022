#include "worker/queue/scheduler.h"

#include <algorithm>
#include <cassert>

namespace penstock::queue {

using State = Scheduler::Ticket::State;

Scheduler::Queue& Scheduler::set_queue(const QueueSettings& settings) {
  Queue* queue = find_queue(settings.name);
  if (queue == nullptr) {
    queue = &queues_.emplace_back();
    queue->lanes.push_back(std::make_unique<Lane>());
    queue->lanes.front()->queue = queue;
  }
  queue->settings = settings;
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

bool Scheduler::add(Ticket& ticket, Lane& lane, int64_t priority, int64_t now_ns) {
  assert(ticket.state_ == State::kUnknown);
  const QueueSettings& settings = lane.queue->settings;
  if (full(*lane.queue)) {
    return false;
  }
  ticket.place = {priority, 0, ++arrivals_};
  ticket.lane_ = &lane;
  ticket.attempts_ = 0;
  ticket.arrived_ns_ = now_ns;
  ticket.deadline_ns_ = settings.deadline_ns > 0 ? now_ns + settings.deadline_ns : INT64_MAX;
  ++lane.queue->waiting;
  wait(ticket);
  return true;
}

// Stands in line, at the ticket's own place. The queue's count was taken care of.
void Scheduler::wait(Ticket& ticket) noexcept {
  ticket.state_ = State::kWaiting;
  ticket.lane_->waiting_.insert(ticket);
  timers_.set(ticket, ticket.deadline_ns_);
}

Scheduler::Ticket* Scheduler::take(Lane& worker_lane, int64_t now_ns) noexcept {
  OrderTree::Node* own = worker_lane.waiting_.first();
  OrderTree::Node* any = worker_lane.queue->any_model().waiting_.first();
  OrderTree::Node* next =
      own == nullptr || (any != nullptr && any->place.before(own->place)) ? any : own;
  if (next == nullptr) {
    return nullptr;
  }
  Ticket& ticket = ticket_of(*next);
  ticket.lane_->waiting_.erase(ticket);
  ticket.state_ = State::kRunning;
  ticket.started_ns_ = now_ns;
  ticket.served_by_ = &worker_lane;
  ++worker_lane.running;
  ++worker_lane.queue->running;
  --worker_lane.queue->waiting;
  return &ticket;
}

// Takes the ticket out of wherever it is; it keeps its place and its attempts.
void Scheduler::leave(Ticket& ticket) noexcept {
  Queue& queue = *ticket.lane_->queue;
  timers_.erase(ticket);
  switch (ticket.state_) {
    case State::kUnknown:
      return;
    case State::kWaiting:
      ticket.lane_->waiting_.erase(ticket);
      --queue.waiting;
      break;
    case State::kDelayed:
      --queue.waiting;
      break;
    case State::kRunning:
      --ticket.served_by_->running;
      --queue.running;
      break;
  }
  ticket.state_ = State::kUnknown;
}

void Scheduler::finish(Ticket& ticket, Outcome outcome, int64_t now_ns) noexcept {
  if (ticket.state_ == State::kUnknown) {
    return;
  }
  if (outcome == Outcome::kCompleted && ticket.state_ == State::kRunning) {
    const int64_t took_ns = std::max<int64_t>(0, now_ns - ticket.started_ns_);
    ticket.served_by_->service.observe(took_ns);
    ticket.lane_->queue->any_model().service.observe(took_ns);
  }
  leave(ticket);
}

bool Scheduler::retry(Ticket& ticket, Cause cause, int64_t now_ns) {
  assert(ticket.state_ == State::kRunning);
  const QueueSettings& settings = ticket.lane_->queue->settings;
  leave(ticket);
  if (++ticket.attempts_ >= settings.attempts) {
    return false;
  }
  ++ticket.lane_->queue->waiting;
  const uint32_t waits = ticket.attempts_ - (cause == Cause::kWorkerLost ? 1 : 0);
  if (waits == 0 || settings.backoff_ns == 0) {
    wait(ticket);
    return true;
  }
  const int64_t factor = int64_t{1} << std::min<uint32_t>(waits - 1, 20);
  const int64_t delay_ns = std::min(settings.backoff_ns, kMaxBackoffNs / factor) * factor;
  ticket.state_ = State::kDelayed;
  timers_.set(ticket, std::min(ticket.deadline_ns_, now_ns + delay_ns));
  return true;
}

void Scheduler::advance_to(int64_t now_ns, std::vector<Expired>& expired) {
  while (next_event() <= now_ns) {
    Ticket& ticket = ticket_of(*timers_.first());
    if (ticket.deadline_ns_ <= now_ns) {
      expired.push_back({&ticket, ticket.state_ == State::kRunning});
      leave(ticket);
    } else {
      wait(ticket);
    }
  }
}

int64_t Scheduler::next_event() const noexcept {
  const TimerHeap::Node* first = timers_.first();
  return first != nullptr ? first->due_ns() : INT64_MAX;
}

// The lanes whose jobs go to the same workers as this lane's.
template <typename Visit>
void Scheduler::each_competing(const Lane& lane, Visit&& visit) {
  const Lane& any = lane.queue->any_model();
  if (&lane == &any) {
    for (const auto& each : lane.queue->lanes) {
      visit(*each);
    }
  } else {
    visit(lane);
    visit(any);
  }
}

uint32_t Scheduler::position(const Ticket& ticket) const noexcept {
  if (ticket.state_ != State::kWaiting && ticket.state_ != State::kDelayed) {
    return 0;
  }
  uint32_t ahead = 0;
  each_competing(*ticket.lane_,
                 [&](const Lane& lane) { ahead += lane.waiting_.before(ticket.place); });
  return ahead + 1;
}

// The drain rate is capacity over service time: one job leaves each mean/capacity.
int64_t Scheduler::wait_behind(const Lane& lane, uint32_t ahead) noexcept {
  uint32_t running = lane.running;
  if (lane.model.empty()) {
    running = lane.queue->running;
  }
  const uint32_t free = lane.capacity > running ? lane.capacity - running : 0;
  if (free > ahead) {
    return 0;
  }
  const double mean_ns = lane.service.mean_ns() > 0 ? lane.service.mean_ns()
                                                    : lane.queue->any_model().service.mean_ns();
  return static_cast<int64_t>((ahead - free + 1) * mean_ns / lane.last_capacity_);
}

int64_t Scheduler::predicted_wait_ns(const Ticket& ticket) const noexcept {
  const uint32_t rank = position(ticket);
  return rank == 0 ? 0 : wait_behind(*ticket.lane_, rank - 1);
}

int64_t Scheduler::predicted_wait_ns(const Lane& lane) const noexcept {
  uint32_t ahead = 0;
  each_competing(lane, [&](const Lane& each) { ahead += each.waiting_.size(); });
  return wait_behind(lane, ahead);
}

}  // namespace penstock::queue
