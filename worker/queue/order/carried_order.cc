#include "worker/queue/order/carried_order.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "worker/queue/order/lanes.h"

namespace penstock::queue {

using State = Scheduler::Ticket::State;

namespace {

template <typename Estimate>
std::string_view bytes_of(const Estimate& estimate) {
  static_assert(std::is_trivially_copyable_v<Estimate>);
  return {reinterpret_cast<const char*>(&estimate), sizeof estimate};
}

// What another version has learned otherwise is learned again.
template <typename Estimate>
void read_into(Estimate& estimate, std::string_view bytes) {
  if (bytes.size() == sizeof estimate) {
    std::memcpy(static_cast<void*>(&estimate), bytes.data(), bytes.size());
  }
}

}  // namespace

void CarriedOrder::note(const Scheduler::Ticket& ticket, CarriedJob& job) const {
  const Scheduler::Lane& lane = *ticket.lane();
  const bool scheduled = ticket.state() == State::kScheduled;
  const bool in_heap = ticket.is_set() && !TimerRing<Scheduler::Ticket>::has(ticket);
  job.queue = lane.queue->settings.name;
  job.model = lane.model;
  job.share = ticket.owner().id;
  job.priority = scheduled ? static_cast<int64_t>(ticket.place.tag) : ticket.its_class().priority;
  job.cost = ticket.cost;
  job.tag = ticket.place.tag;
  job.arrival = ticket.place.arrival;
  job.span = ticket.span_;
  job.attempts = ticket.attempts_;
  job.promoted = ticket.promoted_ ? 1 : 0;
  job.state = static_cast<uint64_t>(ticket.state());
  job.arrived_ns = ticket.arrived_ns_;
  job.deadline_ns = ticket.deadline_ns_;
  if (in_heap && (scheduled || ticket.state() == State::kDelayed)) {
    job.due_ns = scheduler_.timers_.due_ns(ticket);
  }
  if (ticket.state() == State::kRunning) {
    job.started_ns = ticket.run_->started_ns;
    job.served_by = ticket.run_->served_by->model;
  }
}

void CarriedOrder::write(RecordWriter& record) const {
  for (const Scheduler::Queue& queue : scheduler_.queues_) {
    record.add(CarriedQueue{
        .name = queue.settings.name, .paused = queue.paused ? 1U : 0U, .taken = queue.taken_});
    for (const auto& lane : queue.lanes) {
      write(record, queue, *lane);
    }
  }
}

void CarriedOrder::write(RecordWriter& record, const Scheduler::Queue& queue,
                         const Scheduler::Lane& lane) const {
  record.add(CarriedLane{.model = lane.model,
                         .context_tokens = lane.context_tokens,
                         .service = bytes_of(lane.service),
                         .spread = bytes_of(lane.spread),
                         .arriving = bytes_of(lane.arriving_),
                         .highest_taken = lane.highest_taken_,
                         .promoted_at = lane.promoted_at_,
                         .aging_ns = lane.is_set() ? scheduler_.aging_.due_ns(lane) : 0});
  for (const auto& each : lane.classes_) {
    if (each->share.empty()) {
      continue;
    }
    record.add(
        CarriedClass{.priority = each->priority, .virtual_time = each->share.virtual_time()});
    queue.owners_.each([&](const Owner& owner) {
      for (const OwnerFlow* flow = &owner.flows.first_; flow != nullptr; flow = flow->next_.get()) {
        if (flow->share_ == &each->share) {
          record.add(CarriedFlow{.owner = owner.id,
                                 .weight = flow->weight_,
                                 .end = flow->end_,
                                 .served = flow->served_,
                                 .rest = flow->rest_});
        }
      }
    });
  }
}

void CarriedOrder::restore(Scheduler::Ticket& ticket, Scheduler::Lane& lane,
                           Scheduler::Lane* served_by, const CarriedJob& job, int64_t now_ns) {
  Scheduler& to = scheduler_;
  Scheduler::Queue& queue = *lane.queue;
  Owner& owner = queue.owners_[job.share];
  queue.with_jobs_ += owner.jobs++ == 0 ? 1 : 0;
  ++queue.waiting;
  ticket.cost = static_cast<uint32_t>(std::clamp<uint64_t>(job.cost, 1, FairShare::kMaxCost));
  ticket.attempts_ = std::min<uint64_t>(job.attempts, Scheduler::kMaxAttempts);
  ticket.arrived_ns_ = job.arrived_ns;
  ticket.deadline_ns_ = job.deadline_ns;
  const int64_t priority = std::min(job.priority, Scheduler::kHighest);
  if (job.state == static_cast<uint64_t>(State::kScheduled)) {
    ticket.state(State::kScheduled);
    ticket.lane_ = &lane;
    ticket.owner_ = &owner;
    ticket.place = {static_cast<uint64_t>(priority), 0};
    ticket.span_ = std::clamp<uint64_t>(job.span, 1, FairShare::kMaxWeight);
    ++owner.scheduled;
    ++queue.scheduled;
    to.timers_.set(ticket, job.due_ns);
    return;
  }
  Scheduler::Class& its = to.class_of(lane, priority);
  FairShare::Flow& flow = its.share.flow_of(owner);
  ++flow.jobs_;
  ++flow.waiting_;
  ++its.share.jobs_;
  ++its.waiting;
  ticket.class_ = &its;
  ticket.flow_ = &flow;
  ticket.place = {job.tag, job.arrival};
  ticket.span_ = std::min(job.span, FairShare::kMaxSpan);
  ticket.promoted_ = job.promoted != 0;
  to.arrivals_ = std::max(to.arrivals_, ticket.promoted_ ? job.tag : job.arrival);
  ticket.state(State::kDelayed);
  if (job.state == static_cast<uint64_t>(State::kRunning) && served_by != nullptr) {
    to.begin(ticket, *served_by, job.started_ns);
  } else if (job.state == static_cast<uint64_t>(State::kDelayed) && job.due_ns != 0) {
    to.timers_.set(ticket, job.due_ns);
    return;
  } else if (!is_set_apart(job)) {
    to.wait(ticket, now_ns);
  }
  to.watch_deadline(ticket);
}

bool CarriedOrder::is_set_apart(const CarriedJob& job) {
  return job.state == static_cast<uint64_t>(State::kDelayed) && job.suspect != 0 &&
         job.suspect_place_plus1 != 0;
}

bool CarriedOrder::read(RecordReader& record) {
  return record.on<CarriedQueue>([this](const CarriedQueue& queue) { read_queue(queue); }) ||
         record.on<CarriedLane>([this](const CarriedLane& lane) {
           if (queue_ != nullptr) {
             read_lane(lane);
           }
         }) ||
         record.on<CarriedClass>([this](const CarriedClass& its) { read_class(its); }) ||
         record.on<CarriedFlow>([this](const CarriedFlow& flow) {
           if (class_ != nullptr) {
             read_flow(flow);
           }
         });
}

void CarriedOrder::read_queue(const CarriedQueue& queue) {
  const auto found =
      std::find_if(scheduler_.queues_.begin(), scheduler_.queues_.end(),
                   [&](const Scheduler::Queue& each) { return each.settings.name == queue.name; });
  queue_ = found == scheduler_.queues_.end() ? nullptr : &*found;
  lane_ = nullptr;
  class_ = nullptr;
  if (queue_ != nullptr) {
    queue_->paused = queue.paused != 0;
    queue_->taken_ = queue.taken;
  }
}

void CarriedOrder::read_lane(const CarriedLane& lane) {
  lane_ = &scheduler_.lane(*queue_, lane.model);
  class_ = nullptr;
  lane_->context_tokens = lane.context_tokens;
  read_into(lane_->service, lane.service);
  read_into(lane_->spread, lane.spread);
  read_into(lane_->arriving_, lane.arriving);
  lane_->highest_taken_ = lane.highest_taken;
  lane_->promoted_at_ = lane.promoted_at;
  if (lane.aging_ns != 0 && lane_->is_set()) {
    scheduler_.aging_.set(*lane_, lane.aging_ns);
  }
}

void CarriedOrder::read_class(const CarriedClass& its) {
  class_ = lane_ == nullptr ? nullptr : Scheduler::find_class(*lane_, its.priority);
  if (class_ != nullptr) {  // wherever it came to as the jobs were put back
    class_->share.now_ = static_cast<int64_t>(std::min<uint64_t>(its.virtual_time, INT64_MAX));
  }
}

void CarriedOrder::read_flow(const CarriedFlow& flow) {
  FairShare& share = class_->share;
  OwnerFlow& to = share.flow_of(queue_->owners_[flow.owner]);
  to.weight_ = static_cast<uint32_t>(std::clamp<uint64_t>(flow.weight, 1, FairShare::kMaxWeight));
  to.end_ = std::max<int64_t>(flow.end, 0);
  to.served_ = std::max<int64_t>(flow.served, 0);
  to.rest_ = flow.rest;
  if (to.jobs_ == 0) {
    share.idle_.set(to, to.end_);
  }
}

}  // namespace penstock::queue
