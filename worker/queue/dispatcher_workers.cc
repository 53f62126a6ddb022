// Dispatcher: jobs go to workers, and answers come back.
#include <algorithm>
#include <map>

#include "worker/queue/caller_session.h"
#include "worker/queue/dispatcher.h"
#include "worker/queue/log.h"
#include "worker/queue/reply.h"
#include "worker/queue/seconds.h"

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
    return {wire::QueueState::kNoWorker,
            whole_seconds(roster_.next_start_ns(lane, now_ns) - now_ns)};
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
  while (worker.running() > 0) {
    Job& job = worker.any_job();
    note_end(job, ordered ? AdaptiveSlots::End::kCancelled : AdaptiveSlots::End::kFailed);
    worker.forget(job);
    put_back(job, Scheduler::Cause::kWorkerLost, message);
  }
  fill_all();
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
}

uint32_t Dispatcher::slots(const Scheduler::Queue& queue) const {
  uint32_t slots = 0;
  for (const auto& [device, lanes] : by_device(
           [](const WorkerSession& worker) { return worker.draining() ? 0 : worker.slots(); })) {
    uint32_t there = 0;
    for (const auto& [lane, count] : lanes) {
      there += lane->queue == &queue ? count : 0;
    }
    slots += std::min(there, device->slots);
  }
  return slots;
}

// Of those on a device that have a free slot, the one whose turn it is; nullptr when there is none.
// It may have no job, if it is the only one.
WorkerSession* Dispatcher::next_worker(const Claims& device) {
  bidders_.clear();
  for (WorkerSession* const worker : workers_) {
    if (&worker->tenant().claims() == &device && worker->credit() > 0) {
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

void Dispatcher::fill(const Claims& device) {
  while (!(draining_ && unpromised_ == 0)) {
    WorkerSession* const worker = next_worker(device);
    Scheduler::Ticket* const next =
        worker == nullptr ? nullptr : scheduler_.take(worker->lane(), wires_.now_ns());
    if (next == nullptr) {
      return;
    }
    give(*worker, static_cast<Job&>(*next));
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
  audience_.forward(job, frame);
  if (job.keeps_answer) {
    job.more->answer.append(bytes);
    if (job.more->answer.bytes > Store::kInlineBytes) {
      spill(job);
    }
    audience_.tell_answer(job);
  }
  abandon_if_unwanted(job);
}

// Those who read too slowly have left, perhaps all.
void Dispatcher::abandon_if_unwanted(Job& job) {
  if (job.promise == Promise::kNone && !Audience::wanted(job)) {
    abandon(job);
  }
}

bool Dispatcher::is_stored(const Job& job) {
  return job.promise != Promise::kNone || (job.more != nullptr && job.more->keep != nullptr);
}

// What is too large for the database goes to its file as it comes.
void Dispatcher::spill(Job& job) {
  Answer& answer = job.more->answer;
  if (is_stored(job) && answer.bytes - answer.stored >= Store::kInlineBytes) {
    store_->append_result(job.id, answer.stored, std::string(answer.from(answer.stored)));
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

// The attempt failed. Whoever calls this sees to it that a worker with credit takes the job.
// REQUIRES: no worker has it.
void Dispatcher::put_back(Job& job, Scheduler::Cause cause, std::string_view why) {
  if (job.answer_began) {
    const std::string message = std::string(kCutShort) + std::string(why);
    const wire::Failed cut{.status = 502, .code = "engine_failed", .message = message};
    if (job.promise == Promise::kNone) {
      count(job, Metrics::Event::kFailed);
      return end_with(job, JobStatus::kFailed, cut);
    }
    audience_.fail(job, cut);  // whoever joined has seen some of it; the promise stands
    job.answer_began = false;
    job.more->answer = {};
  }
  if (job.more != nullptr) {
    job.more->has_progress = false;
  }
  job.extra().home = job.home();  // the ticket forgets it, if this was the last
  if (scheduler_.retry(job, cause, wires_.now_ns())) {
    count(job, Metrics::Event::kRetried);
    if (job.promise != Promise::kNone) {
      store_->attempt(job.id, job.attempts(), "engine_failed", std::string(why));
    }
    return audience_.tell_state(job);
  }
  const uint32_t attempts = job.attempts();
  const std::string message =
      (attempts == 1 ? std::string("The worker failed the only attempt. ")
                     : "The worker failed all " + std::to_string(attempts) + " attempts. ") +
      std::string(why);
  count(job, Metrics::Event::kFailed);
  end_with(job, JobStatus::kFailed, {.status = 502, .code = "engine_failed", .message = message},
           job.promise != Promise::kNone);
}

}  // namespace penstock::queue
