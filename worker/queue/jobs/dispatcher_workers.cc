// Dispatcher: jobs go to workers, and answers come back.
#include <algorithm>
#include <map>

#include "worker/queue/api/caller_session.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/text/log.h"
#include "worker/queue/text/reply.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {

using Promise = Job::Promise;
using Outcome = Scheduler::Outcome;

namespace {

constexpr std::string_view kCutShort = "The answer was cut short. ";

}  // namespace

// ---- to workers ----

Dispatcher::Availability Dispatcher::availability(const Scheduler::Lane& lane) const {
  const int64_t now_ns = wires_.now_ns();
  if (draining_) {
    return {wire::QueueState::kDraining, kDrainRetrySeconds};
  }
  if (!roster_.attended(lane, now_ns, limits_.worker_grace_ns)) {
    const int64_t retry_after_s = whole_seconds(roster_.next_start_ns(lane, now_ns) - now_ns);
    if (roster_.cannot_load(lane)) {
      return {wire::QueueState::kCannotLoad, std::max(retry_after_s, kCannotLoadRetrySeconds)};
    }
    return {wire::QueueState::kNoWorker, retry_after_s};
  }
  if (Scheduler::full(*lane.queue)) {
    return {wire::QueueState::kFull, whole_seconds(wait_for_newcomer_ns(*lane.queue))};
  }
  return {};
}

int64_t Dispatcher::wait_for_newcomer_ns(Scheduler::Queue& queue) const {
  return scheduler_.predicted_wait_ns(queue.any_model(), wires_.now_ns());
}

bool Dispatcher::serves(const WorkerSession& worker, const Scheduler::Lane& lane) const {
  return &worker.lane() == &lane ||
         (worker.lane().queue == lane.queue && &lane == &lane.queue->any_model());
}

WorkerSession* Dispatcher::checker(const Scheduler::Lane& lane, bool completion,
                                   size_t bytes) const {
  WorkerSession* best = nullptr;
  if (checks_.have_room(bytes)) {
    for (WorkerSession* const worker : workers_) {
      if (worker->checks(completion) && serves(*worker, lane) &&
          (best == nullptr || worker->credit() > best->credit())) {
        best = worker;
      }
    }
  }
  return best;
}

void Dispatcher::worker_ready(WorkerSession& worker) {
  workers_.push_back(&worker);
  roster_.ready(worker.name());
  recount();
}

void Dispatcher::worker_leaving(WorkerSession& worker) {
  roster_.leaving(worker.name());
  worker.drain();
}

void Dispatcher::worker_lost(WorkerSession& worker, int64_t next_start_ns, std::string_view why,
                             bool ordered) {
  roster_.lost(worker.name(), wires_.now_ns(), next_start_ns);
  if (std::erase(workers_, &worker) > 0) {
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
    audience_.tell_state(*job);
  }
}

// What each worker counts, by device and lane, within the bounds of those that share them.
template <typename Count>
Dispatcher::ByDevice Dispatcher::by_device(Count&& count) const {
  std::map<std::pair<const Budget*, const Scheduler::Lane*>, uint32_t> by_worker;
  for (const WorkerSession* const worker : workers_) {
    by_worker[{&worker->tenant().budget(), &worker->lane()}] += count(*worker);
  }
  ByDevice counted;
  for (const auto& [of, sum] : by_worker) {
    const auto [share, lane] = of;
    uint32_t& there = counted[&share->device()][lane];
    there = std::min(share->device().slots, there + std::min(sum, share->usual()));
  }
  return counted;
}

void Dispatcher::recount() {
  using Lane = Scheduler::Lane;
  const ByDevice devices = by_device([](const WorkerSession& worker) { return worker.capacity(); });
  struct Share {
    Lane* lane;
    uint32_t device_slots = 0;
    std::map<const Lane*, uint32_t> others;  // their slots on its devices
  };
  std::vector<Share> shares;
  for (Scheduler::Queue& queue : scheduler_.queues()) {
    for (size_t i = 1; i < queue.lanes.size(); ++i) {
      Share& share = shares.emplace_back(Share{queue.lanes[i].get()});
      uint32_t capacity = 0;
      for (const auto& [device, lanes] : devices) {
        const auto own = lanes.find(share.lane);
        if (own == lanes.end()) {
          continue;
        }
        capacity += own->second;
        uint32_t all = 0;
        for (const auto& [lane, slots] : lanes) {
          all += slots;
          share.others[lane] += slots;
        }
        share.device_slots += std::min(all, device->slots);
      }
      share.others.erase(share.lane);
      scheduler_.set_capacity(*share.lane, capacity);
    }
  }
  for (const Share& share : shares) {
    std::vector<Scheduler::Rival> rivals;
    for (const auto& [lane, slots] : share.others) {
      if (slots > 0) {
        rivals.push_back({lane, static_cast<double>(slots) / lane->capacity, slots});
      }
    }
    scheduler_.set_rivals(*share.lane, share.device_slots, std::move(rivals));
  }
  count_slots();
}

void Dispatcher::count_slots() {
  for (auto& [queue, notes] : notes_) {
    notes.slots = 0;
  }
  for (const auto& [device, lanes] : by_device(
           [](const WorkerSession& worker) { return worker.draining() ? 0 : worker.slots(); })) {
    std::map<const Scheduler::Queue*, uint32_t> there;
    for (const auto& [lane, count] : lanes) {
      there[lane->queue] += count;
    }
    for (const auto& [queue, count] : there) {
      notes_.at(queue).slots += std::min(count, device->slots);
    }
  }
}

// Of those on a device that have a free slot, the one whose turn it is; nullptr when there is none.
// It may have no job, if it is the only one.
WorkerSession* Dispatcher::next_worker(const Claims& device) {
  bidders_.clear();
  for (WorkerSession* const worker : workers_) {
    if (&worker->tenant().claims() == &device && worker->credit() > 0 && takes_any(*worker)) {
      bidders_.push_back(worker);
    }
  }
  if (bidders_.size() < 2) {
    return bidders_.empty() ? nullptr : bidders_.front();
  }
  bids_.clear();
  for (WorkerSession* const worker : bidders_) {
    if (const Scheduler::Ticket* const job = Scheduler::next(worker->lane()); job != nullptr) {
      bidders_[bids_.size()] = worker;  // those without a job are left out
      bids_.push_back({.worker = &worker->tenant().budget(),
                       .priority = Scheduler::rank_of(*job),
                       .arrived_ns = job->arrived_ns(),
                       .aging_ns = worker->lane().queue->settings.aging_ns,
                       .busy = worker->tenant().busy(),
                       .slots = worker->slots()});
    }
  }
  return bids_.empty() ? nullptr : bidders_[next_turn(bids_, wires_.now_ns())];
}

// Whether it may be given jobs that are no suspects. Not while it runs such; and where some wait
// and none run, one worker, the least busy, takes no more until it is empty: so they need not wait
// for one that is started anew.
bool Dispatcher::takes_any(const WorkerSession& worker) const {
  if (worker.group() != 0) {
    return false;
  }
  if (!suspects_.waiting(worker.lane())) {
    return true;
  }
  const WorkerSession* least = &worker;
  for (const WorkerSession* const each : workers_) {
    if (&each->lane() == &worker.lane() && !each->draining()) {
      if (each->group() != 0) {
        return true;
      }
      least = each->running() < least->running() ? each : least;
    }
  }
  return least != &worker;
}

// Suspects go first, but only to workers that run nothing else.
bool Dispatcher::give_suspect(const Claims& device) {
  if (suspects_.empty() || (store_ != nullptr && !keeps_up())) {
    return false;
  }
  for (WorkerSession* const worker : workers_) {
    Scheduler::Lane& lane = worker->lane();
    if (&worker->tenant().claims() != &device || worker->credit() == 0 || lane.queue->paused ||
        !(worker->empty() || worker->group() != 0)) {
      continue;
    }
    if (Job* const job = suspects_.take(lane, worker->group()); job != nullptr) {
      scheduler_.take(*job, lane, wires_.now_ns());
      give(*worker, *job);
      return true;
    }
  }
  return false;
}

void Dispatcher::fill(const Claims& device) {
  for (int postponements = 0; !(draining_ && unpromised_ == 0);) {
    if (give_suspect(device)) {
      continue;
    }
    WorkerSession* const worker = next_worker(device);
    Scheduler::Ticket* const next =
        worker == nullptr ? nullptr : scheduler_.take(worker->lane(), wires_.now_ns());
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
  if (Budget& share = worker.tenant().budget(); share.adaptive) {
    share.adaptive->started(wires_.now_ns(), share.running);
  }
  note_started(job);
  if (job.held_bytes() > 0) {
    deliver(job);
  } else {
    store_->fetch(job.id,
                  [this, id = job.id, number = job.more->number](Result<std::string> frame) {
                    fetched(id, number, std::move(frame));
                  });
  }
  audience_.tell_state(job);
}

// Of its first attempt: what followed was not foreseen.
void Dispatcher::note_started(const Job& job) {
  if (job.attempts() > 0) {
    return;
  }
  const bool predicted = job.more->predicted_ms != Job::kNotPredicted;
  Metrics::started(*notes_.at(job.home()->queue).metrics, Scheduler::priority_of(job),
                   job.started_ns() - job.arrived_ns(),
                   predicted ? int64_t{job.more->predicted_ms} * kNsPerMs : -1,
                   job.home()->queue->any_model().service.mean_ns());
}

void Dispatcher::fetched(const JobId& id, uint64_t number, Result<std::string> frame) {
  Job* const job = jobs_.find(id.view());
  if (job == nullptr || job->worker() == nullptr || job->more->number != number) {
    return;  // cancelled, or its worker was lost
  }
  if (!frame) {
    WorkerSession& worker = *job->worker();
    log(Level::kError, frame.error().message);
    revoke(*job);
    put_back(*job, Scheduler::Cause::kJobFailed, "Its request could not be read from disk.");
    return fill(worker.tenant().claims());
  }
  hold(*job, *std::move(frame));
  deliver(*job);
}

// REQUIRES: its frame is in memory.
void Dispatcher::deliver(Job& job) {
  job.worker()->send(job, job.more->frame);
  if (job.promise != Promise::kNone) {  // the store has it
    let_go(job);
  }
}

// What its worker's slots learn by. `work`: what was done; 0: what the job said it would cost.
void Dispatcher::note_end(const Job& job, AdaptiveSlots::End end, double work) const {
  Budget& share = job.worker()->tenant().budget();
  if (share.adaptive) {
    share.adaptive->ended(wires_.now_ns(), share.running - 1,  // this one is about to be forgotten
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

void Dispatcher::pause(Scheduler::Queue& queue) { scheduler_.pause(queue); }

void Dispatcher::resume(Scheduler::Queue& queue) {
  scheduler_.resume(queue);
  fill_all();
}

void Dispatcher::fill_all() {
  for (const WorkerSession* worker : workers_) {
    fill(worker->tenant().claims());
  }
}

// A job came to this lane: the least busy of its workers may take it.
void Dispatcher::offer(const Scheduler::Lane& lane) {
  WorkerSession* best = nullptr;
  for (WorkerSession* worker : workers_) {
    if (serves(*worker, lane) && worker->credit() > (best != nullptr ? best->credit() : 0)) {
      best = worker;
    }
  }
  if (best != nullptr) {
    fill(best->tenant().claims());
  }
}

// ---- from workers ----

void Dispatcher::begin_answer(Job& job, const wire::Head& head, std::string_view frame) {
  job.answer_began = true;
  if (job.keeps_answer) {
    Answer& answer = job.extra().answer;
    answer = {};
    answer.status = static_cast<uint16_t>(head.status);
    answer.content_type = head.content_type;
  }
  if (job.promise == Promise::kNone) {
    let_go(job);
  }
  audience_.forward_head(job, head, frame);
}

void Dispatcher::append_answer(Job& job, std::string_view bytes, std::string_view frame) {
  job.more->taken_bytes += bytes.size();
  audience_.forward(job, frame);
  if (job.keeps_answer) {
    Answer& answer = job.more->answer;
    answer.append(bytes);
    if (answer.bytes > Store::kInlineBytes) {
      spill(job);
    }
    audience_.tell_answer(job);
    answer.trim(is_stored(job));
    if (is_stored(job) && !bound_answer(job)) {
      return;
    }
  }
  if (!abandon_if_unwanted(job)) {
    widen(job);
  }
}

// What is stored is read by the store. Else the answer goes on as fast as its fastest reader.
void Dispatcher::widen(Job& job) {
  if (job.worker() == nullptr || job.more->taken_bytes < wire::kFirstWindowBytes / 2 ||
      (!is_stored(job) && audience_.lags(job))) {
    return;
  }
  job.worker()->widen(job, std::exchange(job.more->taken_bytes, 0));
}

// Those who read too slowly have left, perhaps all: then the job is gone, and this is true.
bool Dispatcher::abandon_if_unwanted(Job& job) {
  const bool unwanted = job.promise == Promise::kNone && !Audience::wanted(job);
  if (unwanted) {
    abandon(job);
  }
  return unwanted;
}

bool Dispatcher::is_stored(const Job& job) {
  return job.promise != Promise::kNone || (job.more != nullptr && job.more->keep != nullptr);
}

// What is too large for the database goes to its file as it comes.
void Dispatcher::spill(Job& job) {
  Answer& answer = job.more->answer;
  if (is_stored(job) && answer.bytes - answer.stored >= Store::kInlineBytes) {
    store_->append_result(job.id, answer.stored, std::string(answer.unstored()));
    answer.stored = answer.bytes;
  }
}

void Dispatcher::note_progress(Job& job, const wire::Progress& progress, std::string_view frame) {
  constexpr uint64_t kMillion = 1'000'000;
  Job::More& more = job.extra();
  more.has_progress = true;
  more.progress = static_cast<double>(std::min(progress.millionths, kMillion)) / kMillion;
  more.step = static_cast<uint32_t>(std::min<uint64_t>(progress.step, UINT32_MAX));
  more.steps = static_cast<uint32_t>(std::min<uint64_t>(progress.steps, UINT32_MAX));
  audience_.forward(job, frame);
  audience_.tell_progress(job);
  abandon_if_unwanted(job);
}

void Dispatcher::complete(Job& job, const wire::Done& done, std::string_view frame) {
  // A prompt is read many tokens at a step, an answer drawn one by one.
  constexpr double kPromptTokens = 256;
  note_end(job, AdaptiveSlots::End::kCompleted,
           static_cast<double>(done.completion_tokens) +
               static_cast<double>(done.prompt_tokens) / kPromptTokens);
  job.worker()->forget(job);
  count(job, Metrics::Event::kCompleted);
  audience_.complete(job, frame);
  if (!job.keeps_answer && job.waiters() == nullptr) {  // as of most that were waited for
    scheduler_.finish(job, Outcome::kCompleted, wires_.now_ns());
    return erase(job);
  }
  JobEnd end = end_of(job, JobStatus::kCompleted);
  end.prompt_tokens = done.prompt_tokens;
  end.completion_tokens = done.completion_tokens;
  end.device_ns = done.device_ns;
  if (job.keeps_answer) {
    end.http_status = job.more->answer.status;
    end.content_type = job.more->answer.content_type;
  }
  conclude(job, std::move(end), Outcome::kCompleted);
}

void Dispatcher::fail(Job& job, const wire::Failed& failed) {
  note_end(job,
           failed.retryable != 0 ? AdaptiveSlots::End::kFailed : AdaptiveSlots::End::kCancelled);
  job.worker()->forget(job);
  const Scheduler::Lane& lane = *job.home();
  if (failed.retryable == 0) {
    count(job, Metrics::Event::kFailed);
    end_with(job, JobStatus::kFailed, failed);
  } else {
    put_back(job, Scheduler::Cause::kJobFailed, failed.message);
  }
  offer(lane);
}

// What was answered is forgotten. False: somebody has seen the beginning of it, and the job has
// ended with that. REQUIRES: no worker has it.
bool Dispatcher::start_over(Job& job, std::string_view why) {
  if (job.answer_began) {
    const std::string message = std::string(kCutShort) + std::string(why);
    const wire::Failed cut{.status = 502, .code = "engine_failed", .message = message};
    if (job.promise == Promise::kNone) {
      count(job, Metrics::Event::kFailed);
      end_with(job, JobStatus::kFailed, cut);
      return false;
    }
    audience_.fail(job, cut);  // whoever joined has seen some of it; the promise stands
    job.answer_began = false;
    job.more->answer = {};
  }
  job.extra().has_progress = false;
  return true;
}

// Its worker was ended under it: that is no attempt. REQUIRES: no worker has it.
void Dispatcher::take_back(Job& job, std::string_view why) {
  if (!start_over(job, why)) {
    return;
  }
  suspects_.forget(job);
  scheduler_.requeue(job, wires_.now_ns());
  count(job, Metrics::Event::kRetried);
  audience_.tell_state(job);
}

// The attempt failed. Whoever calls this sees to it that a worker with credit takes the job. False:
// that was its end. REQUIRES: no worker has it.
bool Dispatcher::put_back(Job& job, Scheduler::Cause cause, std::string_view why) {
  if (!start_over(job, why)) {
    return false;
  }
  suspects_.forget(job);
  job.extra().home = job.home();  // the ticket forgets it, if this was the last
  if (scheduler_.retry(job, cause, wires_.now_ns())) {
    count(job, Metrics::Event::kRetried);
    if (job.promise != Promise::kNone) {
      store_->attempt(job.id, job.attempts(), "engine_failed", std::string(why));
    }
    audience_.tell_state(job);
    return true;
  }
  const uint32_t attempts = job.attempts();
  const std::string message =
      (attempts == 1 ? std::string("The worker failed the only attempt. ")
                     : "The worker failed all " + std::to_string(attempts) + " attempts. ") +
      std::string(why);
  count(job, Metrics::Event::kFailed);
  end_with(job, JobStatus::kFailed, {.status = 502, .code = "engine_failed", .message = message},
           job.promise != Promise::kNone);
  return false;
}

}  // namespace penstock::queue
