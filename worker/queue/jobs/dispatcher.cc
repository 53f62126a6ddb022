#include "worker/queue/jobs/dispatcher.h"

#include <algorithm>
#include <set>

#include "shared/base/units.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/text/log.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {

using PromiseState = Job::PromiseState;
using Outcome = Scheduler::Outcome;

Dispatcher::Dispatcher(ConnectionLoop& connections, int64_t (*wall_clock)())
    : connections_(connections),
      time_(wall_clock),
      owner_events_(connections, subscribers_, live_),
      subscribers_(connections, scheduler_, wall_clock),
      replies_(connections, subscribers_),
      checks_(connections),
      edges_([this](const auto& hold) {
        jobs_.each([&](const Job& job) {
          if (job.more != nullptr && !job.more->receipt.empty() && !job.ending &&
              job.promise == PromiseState::kMade) {
            hold(job.edge_number(), job.more->receipt);
          }
        });
      }),
      since_ms_(wall_clock()) {
  owner_events_.is_draining = [this] { return draining_; };
}

void Dispatcher::use(Store& store) {
  store_ = &store;
  store.on_lost_result = [this](const JobId& id, const std::string& why) { lost_result(id, why); };
  replies_.use(store);
  owner_events_.use(store);
  time_.start(connections_.now_ns());
  if (const auto last = store.last_id()) {
    ids_.start_after(*last);
  }
}

void Dispatcher::apply(const Config& config) {
  for (const QueueConfig& queue : config.queues) {
    scheduler_.set_queue(settings_of(queue));
    note_queue(queue);
  }
  scheduler_.retire_all_but([&](std::string_view name) {
    return std::any_of(config.queues.begin(), config.queues.end(),
                       [&](const QueueConfig& each) { return each.name == name; });
  });
  for (const Scheduler::Queue& queue : scheduler_.queues()) {
    if (queue.retired && queue.waiting + queue.running == 0) {
      metrics_.retire(queue.settings.name);
    }
  }
  if (shared_ != nullptr) {
    shared_->apply(config);
  }
  served_.assign(config, scheduler_, connections_.now_ns());
  paces_.set_time({connections_.now_ns(), time_.ms() * kNsPerMs});
  paces_.apply(config.paces);
  set_brakes(config);
  limits_ = config.limits;
  logs_ends_ = config.log.jobs;
  traces_ = config.traces;
  subscribers_.set_limits(limits_);
  checks_.set_limits(limits_.check_timeout_ns, limits_.max_checking_bytes);
  connections_.limits().submit_bytes = static_cast<uint32_t>(limits_.max_body_bytes + (64 << 10));
  fail_unserved();
  const auto gone = [this](const Scheduler::Lane& lane) {
    return served_.find(*lane.queue, lane.model) == nullptr;
  };
  for (Job* const job : suspects_.release(gone)) {
    scheduler_.join_again(*job, connections_.now_ns());
  }
  give_back_idle();
}

void Dispatcher::set_brakes(const Config& config) {
  std::map<Scheduler::Lane*, std::set<Pace*>> paces;
  for (const WorkerConfig& worker : config.workers) {
    Scheduler::Queue& queue = *scheduler_.find_queue(worker.queue);
    paces[&scheduler_.lane(queue, worker.model_name)].insert(paces_.of(worker));
  }
  for (auto& [lane, of_workers] : paces) {
    const bool free = of_workers.contains(nullptr);  // some worker's jobs start as they come
    lane->brakes.assign(of_workers.begin(), free ? of_workers.begin() : of_workers.end());
    for (Pace* const pace : of_workers) {
      if (!free) {
        pace->lanes.push_back(lane);
      }
    }
  }
}

void Dispatcher::note_queue(const QueueConfig& queue) {
  QueueNotes& notes = notes_[scheduler_.find_queue(queue.name)];
  notes.config = queue;
  notes.metrics = &metrics_.of(queue.name);
}

// What was promised waits for a worker to come back.
void Dispatcher::fail_unserved() {
  jobs_.each([this](Job& job) {
    if (job.promise == PromiseState::kNone && !job.away && job.home() != nullptr &&
        job.worker() == nullptr && !job.ending &&
        served_.find(*job.home()->queue, job.home()->model) == nullptr) {
      end_with(
          job, JobStatus::kFailed,
          {.status = 404, .code = "not_found", .message = "The model is not served any more."});
    }
  });
}

// ---- in ----

Job& Dispatcher::let_in(Waiter& waiter, const limit::Hash128& owner, std::string frame) {
  const int64_t now_ms = time_.ms();
  Job& job = jobs_.add(ulid_of(ids_.make(now_ms)));
  job.created_ms = now_ms;
  job.owner = owner.lo;
  ++unpromised_;
  hold(job, std::move(frame));
  subscribers_.join(waiter, job);
  return job;
}

std::string Dispatcher::begin_trace(Job& job, const Traced& from) {
  auto trace = penstock::queue::begin_trace(job.ulid, from.headers, from.path, traces_);
  if (trace == nullptr) {
    return {};
  }
  trace->limited_us = from.limited_us;
  job.extra().trace = std::move(trace);
  return text_of(*job.more->trace);
}

void Dispatcher::enqueue(Job& job, Scheduler::Lane& lane, const Scheduler::Entry& entry) {
  scheduler_.add(job, lane, entry, connections_.now_ns());
  if (!lane.queue->paused) {
    job.extra().foretold = scheduler_.foretell(job, connections_.now_ns());
    job.more->is_foretold = true;
  }
  count(job, Metrics::Event::kAccepted);
  offer(lane);
}

void Dispatcher::promise(Job& job, JobRecord record) {
  record.id = job.id();
  job.promise = PromiseState::kAsked;
  job.keeps_answer = true;
  job.has_callback = !record.callback.empty();
  --unpromised_;
  show(job);
  job.more->receipt = record.receipt;
  job.more->label = record.label;
  SharedBytes frame = job.more->frame;
  if (job.worker() != nullptr) {  // a free slot has it already, and need not wait for the disk
    let_go(job);
  }
  store_->promise(std::move(record), std::move(frame),
                  [this, id = job.id()](PromiseOutcome outcome) { promised(id, outcome); });
}

void Dispatcher::promised(const JobId& id, PromiseOutcome outcome) {
  Job* const job = find(id);
  if (job == nullptr) {
    return;
  }
  if (outcome != PromiseOutcome::kStored) {
    const std::string message = outcome == PromiseOutcome::kFull
                                    ? "There is no room on disk for another job."
                                    : "The job could not be written to disk.";
    if (outcome == PromiseOutcome::kShareFull) {
      return withdraw(*job, {.status = 429,
                             .code = "quota_exceeded",
                             .message = "Your jobs and their results take as much room on disk as "
                                        "one caller's may. Try again when some are over.",
                             .retry_after_s = kShareRetrySeconds});
    }
    return withdraw(*job, {.status = 503, .code = "busy", .message = message, .retry_after_s = 10});
  }
  job->promise = PromiseState::kMade;
  owner_events_.changed(*job);
  count(*job, Metrics::Event::kPromised);
  if (!job->more->receipt.empty() && !job->ending) {
    edges_.hold(job->edge_number(), job->more->receipt);
  }
  if (frame_bytes_ > kWarmBytes && job->worker() == nullptr) {
    let_go(*job);
  }
  // Its end may have come before this, and may take long to be written: that keeps no promise
  // waiting.
  for (Waiter* waiter = job->waiters(); waiter != nullptr;) {
    Waiter* const next = waiter->next;
    if (waiter->kind == Waiter::Kind::kPromise) {
      replies_.promised(*waiter, *job);
    }
    waiter = next;
  }
  trim(*job);
}

// The promise could not be made: as if it had never come.
void Dispatcher::withdraw(Job& job, const wire::Failed& failed) {
  revoke(job);
  if (job.more->answer.stored > 0) {
    store_->discard_result(job.id());
  }
  note_refused();
  scheduler_.finish(job, Outcome::kCancelled, connections_.now_ns());
  turn_away(job, failed);
}

// Whoever waits is told so, and the job forgotten. By that answer the edge gives back what it
// charged. REQUIRES: it is in no queue.
void Dispatcher::turn_away(Job& job, const wire::Failed& failed) {
  if (shared_ != nullptr) {
    shared_->receipts().forget(job.edge_number());
  }
  while (job.waiters() != nullptr) {
    Waiter& waiter = *job.waiters();
    wire::append(waiter.caller->out(), waiter.id, failed);
    subscribers_.leave(waiter);
  }
  erase(job);
}

void Dispatcher::show(Job& job) {
  if (job.owner != 0) {
    live_.insert(job);
  }
}

void Dispatcher::register_key(Job& job, const limit::Hash128& key, const limit::Hash128& digest) {
  job.extra().key = key;
  job.more->digest = digest;
  keys_[key.lo] = &job;
}

Job* Dispatcher::find_key(const limit::Hash128& key) const {
  const auto found = keys_.find(key.lo);
  return found == keys_.end() ? nullptr : found->second;
}

void Dispatcher::forget(Job& job) {
  while (job.waiters() != nullptr) {
    subscribers_.leave(*job.waiters());
  }
  erase(job);
}

void Dispatcher::restore(JobRecord&& record) {
  const bool gone = scheduler_.find_queue(record.queue) == nullptr;
  if (gone) {  // its queue stands for as long as the job needs to end as any other
    scheduler_.set_queue({.name = record.queue});
    note_queue(QueueConfig{record.queue});
  }
  Scheduler::Queue* const queue = scheduler_.find_queue(record.queue);
  queue->retired = gone;
  Job& job = jobs_.add(ulid_of(record.id));
  job.created_ms = record.created_ms;
  job.owner = record.owner.lo;
  job.promise = PromiseState::kMade;
  job.keeps_answer = true;
  job.has_callback = !record.callback.empty();
  show(job);
  if (!record.label.empty()) {
    job.extra().label = std::move(record.label);
  }
  if (!record.trace.empty()) {
    job.extra().trace = parse_trace(record.trace);
  }
  if (record.key != limit::Hash128{}) {
    register_key(job, record.key, record.digest);
  }
  if (!record.receipt.empty()) {
    job.extra().receipt = std::move(record.receipt);
    edges_.hold(job.edge_number(), job.more->receipt);
  }
  const int64_t now_ns = connections_.now_ns();
  const int64_t now_ms = time_.ms();
  // If the clock was set back since, nobody knows how long it has been here: its time begins anew.
  // So it does where the time of day is not to be believed (clock_doubt.h).
  const bool set_back = clock_doubted || record.created_ms > now_ms;
  const auto steady = [&](int64_t ms) { return ms == 0 ? 0 : now_ns + (ms - now_ms) * kNsPerMs; };
  job.by_date = record.not_before_ms > now_ms;
  Scheduler::Lane& lane = scheduler_.lane(*queue, record.model);
  scheduler_.add(job, lane,
                 {.owner = record.share.lo,
                  .priority = record.priority,
                  .cost = record.cost,
                  .weight = record.weight,
                  .not_before_ns = job.by_date ? steady(record.not_before_ms) : 0,
                  .arrived_ns = set_back ? 0 : steady(record.created_ms),
                  .deadline_ns = set_back ? 0 : steady(record.deadline_ms),
                  .attempts = record.end.attempts,
                  .force = true},
                 now_ns);
  if (!gone) {
    return offer(lane);
  }
  const std::string why = "There is no queue '" + record.queue + "' any more.";
  log(Level::kWarn, "job " + std::string(job.id().view()) + " is dead: " + why);
  count(job, Metrics::Event::kFailed);
  end_with(job, JobStatus::kFailed, {.status = 502, .code = "engine_failed", .message = why}, true);
}

void Dispatcher::count(const Scheduler::Queue& queue, Metrics::Event event) {
  Metrics::count(*notes_.at(&queue).metrics, event);
}

// ---- frames in memory ----

void Dispatcher::hold(Job& job, std::string frame) {
  Job::More& more = job.extra();
  more.frame_bytes = static_cast<uint32_t>(frame.size());
  frame_bytes_ += more.frame_bytes;
  more.frame = std::move(frame);
}

void Dispatcher::let_go(Job& job) {
  if (job.more != nullptr) {
    frame_bytes_ -= std::exchange(job.more->frame_bytes, 0);
    job.more->frame = {};
  }
}

// Of most jobs that are queued, nothing more need be in memory. Of some, what was foretold is: how
// true that is can be learned from a part as well.
void Dispatcher::trim(Job& job) {
  constexpr uint64_t kOneOf = 16;
  if (job.more != nullptr &&
      (job.more->ends_by_ns != 0 || (job.more->is_foretold && job.edge_number() % kOneOf == 0))) {
    return;
  }
  if (job.more != nullptr && job.frame_bytes() == 0 && job.worker() == nullptr &&
      job.waiters() == nullptr && !job.answer_began && !job.ending && job.more->receipt.empty() &&
      job.more->trace == nullptr && job.more->key == limit::Hash128{}) {
    job.more.reset();
  }
}

// ---- time ----

// What is due at a date is due earlier, or later.
void Dispatcher::follow_clock() {
  if (store_ == nullptr) {
    return;
  }
  const TimeOfDay::Step step = time_.take_step(connections_.now_ns());
  if (step.ms == 0) {
    return;
  }
  if (step.at_once) {
    log(Level::kWarn, "the clock was stepped by " + std::to_string(step.ms) + " ms");
  }
  jobs_.each([&](Job& job) {
    if (job.by_date && job.state() == Scheduler::Ticket::State::kScheduled) {
      scheduler_.reschedule(job,
                            std::max(connections_.now_ns(), job.arrived_ns() - step.ms * kNsPerMs));
    }
  });
}

void Dispatcher::drain() {
  draining_ = true;
  jobs_.each([this](Job& job) {
    if (job.shared && !job.ending && job.worker() == nullptr &&
        job.promise != PromiseState::kNone) {
      give_back(job, std::nullopt);
    }
  });
}

void Dispatcher::advance_to(int64_t now_ns) {
  paces_.set_time({now_ns, time_.ms() * kNsPerMs});
  if (std::exchange(refill_, false) || workers_.opens_ns() <= now_ns) {
    workers_.forget_opens();
    fill_all();
  }
  follow_clock();
  const bool due = scheduler_.next_event() <= now_ns;
  if (due) {
    expired_.clear();
    scheduler_.advance_to(now_ns, expired_);
    for (const Scheduler::Expired& each : expired_) {
      auto& job = static_cast<Job&>(*each.ticket);
      job.remember(*each.lane, each.owner);
      expire(job);
    }
    fill_all();  // back-offs ended, perhaps
  }
  checks_.advance_to(now_ns);
  usage_.advance_to(now_ns);
  due_.over.clear();
  due_.stuck.clear();
  due_.owners.clear();
  due_.quiet.clear();
  subscribers_.advance_to(now_ns, due_);
  for (Waiter* waiter : due_.stuck) {
    wire::append(waiter->caller->out(), waiter->id,
                 wire::Failed{.status = 408,
                              .code = "not_read",
                              .message = "The answer was cut short: nothing of it was read for " +
                                         format_duration(limits_.read_timeout_ns) + "."});
    release(*waiter);
  }
  for (Waiter* waiter : due_.over) {
    Job& job = *waiter->job;
    replies_.promised(*waiter, job);
    forget_unwatched(job);
  }
  for (Waiter* waiter : due_.owners) {
    owner_events_.look(*waiter);
  }
  for (Waiter* waiter : due_.quiet) {
    let_speak(*waiter);
  }
  if (shared_ != nullptr) {
    ask_for_shared();
  }
  if (!subscribers_.empty() && look_ns_ <= now_ns) {
    look_ns_ = now_ns + kNsPerSec;
    turn_away_unattended();
  }
}

int64_t Dispatcher::next_event() const {
  return std::min({scheduler_.next_event(), subscribers_.next_event(), checks_.next_event(),
                   usage_.next_event(), workers_.opens_ns(),
                   subscribers_.empty() ? INT64_MAX : look_ns_});
}

}  // namespace penstock::queue
