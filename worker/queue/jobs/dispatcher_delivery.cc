// Dispatcher: which job goes to which worker.
#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/text/log.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {

using PromiseState = Job::PromiseState;
using Outcome = Scheduler::Outcome;

Dispatcher::Availability Dispatcher::availability(const Scheduler::Lane& lane) const {
  const int64_t now_ns = connections_.now_ns();
  if (draining_) {
    return {wire::QueueState::kDraining, drain_retry_s(*lane.queue)};
  }
  if (const SharedQueue* const queue = shared_now(*lane.queue); queue != nullptr) {
    constexpr int64_t kRetrySeconds = 2;
    if (!queue->is_there()) {
      return {wire::QueueState::kAway, kRetrySeconds};
    }
    if (queue->roster().models().empty()) {
      return {wire::QueueState::kNoWorker, kRetrySeconds, true};
    }
    return lane.all_hosts.shared && lane.all_hosts.attending == 0
               ? Availability{wire::QueueState::kNoWorker, kDrainRetrySeconds, true}
               : Availability();
  }
  if (!served_.attended(lane, now_ns, limits_.worker_grace_ns)) {
    const int64_t next_ns = served_.next_start_ns(lane, now_ns);
    const int64_t retry_after_s =
        next_ns == INT64_MAX ? kPausedRetrySeconds : whole_seconds(next_ns - now_ns);
    if (served_.cannot_load(lane)) {
      return {wire::QueueState::kCannotLoad, std::max(retry_after_s, kCannotLoadRetrySeconds),
              true};
    }
    return {wire::QueueState::kNoWorker, retry_after_s, true};
  }
  if (Scheduler::full(*lane.queue)) {
    return {wire::QueueState::kFull, whole_seconds(wait_for_newcomer_ns(*lane.queue))};
  }
  return {};
}

// Whoever waits where nobody is worth waiting for any more is told so, as who comes is. What was
// promised waits on.
void Dispatcher::turn_away_unattended() {
  std::unordered_map<const Scheduler::Lane*, Availability> lanes;
  std::vector<JobId> jobs;
  subscribers_.each([&](const Waiter& waiter) {
    const Job* const job = waiter.job;
    if (job == nullptr || job->promise != PromiseState::kNone || job->ending || job->looking_up ||
        job->home() == nullptr || Subscribers::status_of(*job) == JobStatus::kProcessing) {
      return;
    }
    const auto [lane, is_new] = lanes.try_emplace(job->home());
    lane->second = is_new ? availability(*job->home()) : lane->second;
    if (lane->second.unattended) {
      jobs.push_back(job->id());
    }
  });
  for (const JobId& id : jobs) {
    Job* const job = find(id);
    if (job == nullptr) {  // two waited for it
      continue;
    }
    const Scheduler::Lane& lane = *job->home();
    const int64_t retry_s = lanes.at(&lane).retry_after_s;
    const wire::Failed failed{.status = 503,
                              .code = "busy",
                              .message = served_.unattended_words(lane) + try_again(retry_s),
                              .retry_after_s = static_cast<uint64_t>(retry_s)};
    if (job->away) {
      cancel_away(*job);
      turn_away(*job, failed);
    } else {
      count(*job, Metrics::Event::kFailed);
      end_with(*job, JobStatus::kFailed, failed);
    }
  }
}

int64_t Dispatcher::wait_for_newcomer_ns(Scheduler::Queue& queue) const {
  return scheduler_.predicted_wait_ns(queue.any_model(), connections_.now_ns());
}

void Dispatcher::worker_ready(WorkerSession& worker) {
  workers_.add(worker);
  if (worker.is_out()) {
    served_.expect(worker.name(), worker.reopens_ns());
  } else {
    served_.ready(worker.name(), connections_.now_ns());
  }
  recount();
}

// One whose backend is not there is as one that is being started anew.
void Dispatcher::on_slots(WorkerSession& worker) {
  if (worker.ready() && !worker.draining()) {
    if (worker.is_out()) {
      served_.lost(worker.name(), connections_.now_ns(), worker.reopens_ns());
    } else {
      served_.ready(worker.name(), connections_.now_ns());
    }
  }
  recount();
  fill(worker.seat().claims());
}

void Dispatcher::worker_leaving(WorkerSession& worker) {
  served_.leaving(worker.name());
  worker.drain();
}

void Dispatcher::worker_lost(WorkerSession& worker, int64_t next_start_ns, std::string_view why,
                             bool ordered) {
  served_.lost(worker.name(), connections_.now_ns(), next_start_ns);
  if (workers_.remove(worker)) {
    recount();
  }
  const std::string message =
      why.empty() ? "The worker stopped." : std::string("The worker stopped: ").append(why) + ".";
  checks_.lost(worker);
  std::vector<Job*> suspected;
  while (worker.running() > 0) {
    Job& job = worker.any_job();
    const bool blameless = ordered || !worker.was_sent(job);
    note_end(job, ordered ? AdaptiveSlots::End::kCancelled : AdaptiveSlots::End::kFailed);
    worker.forget(job);
    if (blameless) {
      take_back(job, message);
    } else {
      suspected.push_back(&job);
    }
  }
  crashed(worker, suspected, message);
  fill_all();
  give_back_idle();
}

// Who was alone there has failed an attempt. Of several, nobody knows who it was (suspects.h).
void Dispatcher::crashed(WorkerSession& worker, std::vector<Job*>& jobs, std::string_view why) {
  using Cause = Scheduler::Cause;
  if (jobs.size() == 1 && worker.slots() == 1) {
    put_back(*jobs.front(), Cause::kWorkerLost, why);
    return;
  }
  if (jobs.size() == 1) {
    if (put_back(*jobs.front(), Cause::kWorkerLostAlone, why)) {
      suspects_.add(worker.lane(), jobs);
    }
    return;
  }
  std::sort(jobs.begin(), jobs.end(),
            [](const Job* a, const Job* b) { return a->more->number < b->more->number; });
  std::erase_if(jobs, [&](Job* job) { return !start_over(*job, why); });
  for (Job* const job : jobs) {
    suspects_.forget(*job);
    scheduler_.set_apart(*job);
    count(*job, Metrics::Event::kRetried);
  }
  suspects_.add(worker.lane(), jobs);
  for (Job* const job : jobs) {
    subscribers_.tell_state(*job);
  }
}

WorkerSession* Dispatcher::checker(const Scheduler::Lane& lane, bool completion,
                                   size_t bytes) const {
  return checks_.have_room(bytes) ? workers_.checker(lane, completion) : nullptr;
}

// Before its stream may begin with 200, a worker says whether the engine would refuse it. What is
// promised was shown before.
void Dispatcher::let_speak(Waiter& waiter) {
  Job& job = *waiter.job;
  if (job.shown && !job.passed) {
    return;  // it is being asked
  }
  WorkerSession* const worker =
      job.passed || job.frame_bytes() == 0 || job.promise != PromiseState::kNone
          ? nullptr
          : checker(*job.home(), waiter.news->completion, job.frame_bytes());
  if (worker == nullptr) {
    return subscribers_.open(waiter);
  }
  job.shown = true;
  checks_.ask(*worker, job.more->frame,
              [this, id = job.id()](const wire::Checked* refusal) { seen(id, refusal); });
}

void Dispatcher::seen(const JobId& id, const wire::Checked* refusal) {
  Job* const job = find(id);
  if (job == nullptr || job->ending || job->away) {
    return;
  }
  job->passed = refusal == nullptr;
  job->shown = job->passed;
  if (Subscribers::status_of(*job) != JobStatus::kQueued) {
    return;  // it runs, and its answer says the same
  }
  if (job->passed) {
    return subscribers_.speak_soon(*job);
  }
  count(*job, Metrics::Event::kFailed);
  end_with(*job, JobStatus::kFailed,
           {.status = refusal->status,
            .code = refusal->code,
            .message = refusal->message,
            .param = refusal->param});
}

void Dispatcher::recount() {
  workers_.count_capacity(scheduler_);
  const auto slots = workers_.slots_by_queue();
  for (auto& [queue, notes] : notes_) {
    const auto found = slots.find(queue);
    notes.slots = found == slots.end() ? 0 : found->second;
  }
}

// Suspects go first, but only to workers that run nothing else.
bool Dispatcher::give_suspect(const Claims& device) {
  if (suspects_.empty() || (store_ != nullptr && !keeps_up())) {
    return false;
  }
  const auto [worker, job] = workers_.next_suspect(device, suspects_);
  if (job == nullptr) {
    return false;
  }
  scheduler_.take(*job, worker->lane(), connections_.now_ns());
  give(*worker, *job);
  return true;
}

void Dispatcher::fill(const Claims& device) {
  for (int postponements = 0; !(draining_ && unpromised_ == 0);) {
    if (give_suspect(device)) {
      continue;
    }
    WorkerSession* const worker = workers_.next(device, suspects_, connections_.now_ns());
    Scheduler::Ticket* const next =
        worker == nullptr ? nullptr : scheduler_.take(worker->lane(), connections_.now_ns());
    if (next == nullptr) {
      return;
    }
    if (!postponed(static_cast<Job&>(*next))) {
      give(*worker, static_cast<Job&>(*next));
    } else if (++postponements == kMostPostponed) {
      refill_ = true;
      return;
    }
  }
}

void Dispatcher::give(WorkerSession& worker, Job& job) {
  const int64_t expected_ns = Scheduler::expected_ns(job);
  worker.assign(job, ++last_number_, Scheduler::rank_of(job),
                expected_ns > 0 ? expected_ns : kUnknownJobNs);
  if (Budget& share = worker.seat().budget(); share.adaptive) {
    share.adaptive->started(connections_.now_ns(), share.running);
  }
  note_started(job);
  if (const int64_t ends_by_ns = std::exchange(job.more->ends_by_ns, 0); ends_by_ns != 0) {
    scheduler_.set_deadline(job, ends_by_ns);
  }
  if (job.frame_bytes() > 0) {
    deliver(job);
  } else {
    store_->fetch(job.id(),
                  [this, id = job.id(), number = job.more->number](Result<std::string> frame) {
                    fetched(id, number, std::move(frame));
                  });
  }
  subscribers_.tell_state(job);
  owner_events_.changed(job);
}

// Of its first attempt: what followed was not foreseen.
void Dispatcher::note_started(const Job& job) {
  if (job.attempts() > 0) {
    return;
  }
  const int64_t waited_ns = job.started_ns() - job.arrived_ns();
  const Scheduler::Foretold& foretold = job.more->foretold;
  const bool predicted = job.more->is_foretold;
  wire::QueueMetrics& metrics = *notes_.at(job.home()->queue).metrics;
  Metrics::started(metrics, Scheduler::priority_of(job), waited_ns,
                   predicted ? foretold.told_ns() : -1,
                   job.home()->queue->any_model().service.mean_ns());
  if (predicted && waited_ns > 0 && foretold.told.known()) {
    note_came_true(*job.lane(), job.id(), foretold, waited_ns);
  }
}

void Dispatcher::fetched(const JobId& id, uint64_t number, Result<std::string> frame) {
  Job* const job = find(id);
  if (job == nullptr || job->worker() == nullptr || job->more->number != number) {
    return;  // cancelled, or its worker was lost
  }
  if (!frame) {
    WorkerSession& worker = *job->worker();
    log(Level::kError, frame.error().message);
    revoke(*job);
    put_back(*job, Scheduler::Cause::kJobFailed, "Its request could not be read from disk.");
    return fill(worker.seat().claims());
  }
  hold(*job, *std::move(frame));
  deliver(*job);
}

// REQUIRES: its frame is in memory.
void Dispatcher::deliver(Job& job) {
  const bool traced = job.more->trace != nullptr && job.more->trace->spans && traces_.on();
  job.worker()->send(job, job.more->frame, traced ? run_traceparent(job) : std::string());
  if (job.promise != PromiseState::kNone && !job.shared) {  // the store has it
    let_go(job);
  }
}

// What its worker's slots learn by. `work`: what was done; 0: what the job said it would cost.
void Dispatcher::note_end(const Job& job, AdaptiveSlots::End end, double work) {
  const Pace* const pace = job.worker()->pace();
  refill_ = refill_ || (pace != nullptr && pace->at_once() > 0);  // of others, too
  Budget& share = job.worker()->seat().budget();
  if (share.adaptive) {
    share.adaptive->ended(connections_.now_ns(),
                          share.running - 1,  // this one is about to be forgotten
                          {.began_ns = job.started_ns(),
                           .work = work > 0 ? work : static_cast<double>(Scheduler::cost_of(job)),
                           .end = end});
  }
}

void Dispatcher::revoke(Job& job) {
  if (job.worker() != nullptr) {
    note_end(job, AdaptiveSlots::End::kCancelled);
    refill_ = job.worker()->revoke(job) || refill_;
  }
}

void Dispatcher::pause(Scheduler::Queue& queue) {
  scheduler_.pause(queue);
  give_back_idle();
}

void Dispatcher::resume(Scheduler::Queue& queue) {
  scheduler_.resume(queue);
  fill_all();
}

void Dispatcher::fill_all() {
  workers_.each([this](const WorkerSession& worker) { fill(worker.seat().claims()); });
}

// A job came to this lane: the least busy of its workers may take it.
void Dispatcher::offer(const Scheduler::Lane& lane) {
  WorkerSession* const best = workers_.least_busy(lane, connections_.now_ns());
  if (best != nullptr) {
    fill(best->seat().claims());
  }
}

}  // namespace penstock::queue
