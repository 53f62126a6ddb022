// Dispatcher: jobs of queues that hosts share, whose order is in Redis (shared_jobs/).
//
//     let in ──hand_over()──▶ away ──on_taken()──▶ shared: it runs here, as any other
//                              ▲ │                    │ │
//                              └─┼──── send_away() ◀──┘ └──conclude_shared()──▶ ended()
//                                └─look_for_end()──▶ ended()
//
// A job is in memory here while it runs here, or while somebody waits for it here, or the edge
// holds something for it. Else Redis alone has it.
#include <algorithm>

#include "worker/queue/jobs/caller.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

using PromiseState = Job::PromiseState;
using Outcome = Scheduler::Outcome;

namespace {

constexpr int64_t kUsPerMs = 1000;

std::string text_of(const Job& job) { return std::string(job.id().view()); }

// Others may run it, and nobody waits.
void cancel_for_nobody(SharedQueue& queue, const Job& job) {
  const JobRecord& record = *job.more->keep;
  queue.see_cancelled(job.id().view(), encode(record, {}), keep_ms(record));
}

}  // namespace

void Dispatcher::use(SharedJobs& shared) {
  shared_ = &shared;
  charges_.use(shared);
  owner_events_.is_shared = !shared.queues().empty();
  time_.start(connections_.now_ns());
}

// ---- jobs that came in here

Newcomer Dispatcher::newcomer(const JobRecord& record, std::string body) {
  using Mark = SharedOrder::Mark;
  const Scheduler::Queue* const queue = scheduler_.find_queue(record.queue);
  Newcomer job;
  unsigned marks = on_event ? Mark::kTellsFeed : 0;
  if (record.promised) {
    marks |= record.callback.empty() ? 0 : Mark::kTellsUrl;
    marks |= tells_hooks ? Mark::kTellsHooks : 0;
    marks |= notes_.at(queue).config.keep_bodies_ns > 0 ? Mark::kKeepsBody : 0;
  }
  if (!record.brief) {
    job.listed = hex(record.owner);
  }
  job.id = record.id.view();
  job.lane = record.model;
  job.body = std::move(body);
  job.promised = record.promised;
  job.job.marks = static_cast<uint8_t>(marks);
  job.job.waited = !record.promised;
  job.job.owner = record.share.lo;
  job.job.priority = record.priority;
  job.job.cost = record.cost;
  job.job.weight = record.weight;
  job.job.not_before_us = record.not_before_ms * kUsPerMs;
  return job;
}

void Dispatcher::hand_over(Job& job, Scheduler::Lane& lane, uint64_t share, bool promised) {
  job.looking_up = false;
  job.away = true;
  job.remember(lane, share);
  let_go(job);
  foretell_away(job, lane);
  count(job, Metrics::Event::kAccepted);
  if (promised) {
    job.promise = PromiseState::kMade;
    --unpromised_;
    count(job, Metrics::Event::kPromised);
    if (!job.more->receipt.empty()) {
      edges_.hold(job.edge_number(), job.more->receipt);
      SharedCharges::promised(*shared(*lane.queue), job.id(), job.more->receipt);
    }
  }
  for (Waiter* waiter = job.waiters(); waiter != nullptr;) {
    Waiter* const next = waiter->next;
    if (promised && waiter->kind == Waiter::Kind::kPromise) {
      replies_.promised(*waiter, job);
    } else {
      if (waiter->kind == Waiter::Kind::kPromise) {  // of another caller's connection alone
        waiter->wait_ns = Waiter::kToTheEnd;
      }
      replies_.accepted(*waiter, job);
    }
    waiter = next;
  }
  const auto early = early_.extract(text_of(job));
  send_away(job);
  if (!early.empty() && early.mapped().is_ours()) {
    on_taken(*early.mapped().queue, early.mapped().taken);
  }
}

Job& Dispatcher::watch(SharedQueue& queue, const JobRecord& record,
                       const SharedOrder::Known& known) {
  Job* job = find(record.id);
  if (job == nullptr) {
    job = &jobs_.add(ulid_of(record.id));
    job->created_ms = record.created_ms;
    job->owner = record.owner.lo;
    job->promise = PromiseState::kMade;
    job->away = true;
    job->extra().label = record.label;
    job->more->position = record.status == JobStatus::kProcessing ? 0 : 1;
    job->more->keep = std::make_unique<JobRecord>(record);
    Scheduler::Queue& its = *scheduler_.find_queue(queue.name());
    job->remember(scheduler_.lane(its, record.model), record.share.lo);
    queue.watch(text_of(*job));
  }
  if (job->away && job->more->heard == nullptr) {
    job->more->fence = record.status == JobStatus::kProcessing ? known.fence : 0;
  }
  return *job;
}

// It is Redis's again, or still. Where nobody waits here, it is forgotten.
void Dispatcher::send_away(Job& job) {
  if (job.shared) {
    job.remember(*job.home(), job.lane() != nullptr ? Scheduler::owner_of(job) : job.more->share);
    suspects_.forget(job);
    if (job.state() != Scheduler::Ticket::State::kUnknown) {
      scheduler_.finish(job, Outcome::kCancelled, connections_.now_ns());
    }
    let_go(job);
    ending_ -= job.promise != PromiseState::kNone && job.ending ? 1 : 0;
    shared(*job.home()->queue)->writer().leave(text_of(job));
    job.shared = job.tells = job.ending = false;
    job.away = true;
    job.more->answer = {};
    job.more->position = 1;
    job.more->is_foretold = false;
  }
  if (job.waiters() == nullptr && job.more->receipt.empty()) {
    remember_foretold(job);
    return erase(job);
  }
  shared(*job.home()->queue)->watch(text_of(job));
  hear(job, {std::exchange(job.more->fence, 0) + 1, 0});
  subscribers_.tell_state(job);
}

void Dispatcher::on_position(SharedQueue& queue, const std::string& id, int64_t position) {
  const auto job_id = parse_job_id(id);
  Job* job = job_id ? find(*job_id) : nullptr;
  if (job == nullptr && job_id && position < 0) {
    learn_forgotten(queue, *job_id);
  }
  if (job == nullptr || !job->away) {
    return queue.unwatch(id);
  }
  if (position < 0) {
    return look_for_end(queue, *job_id);
  }
  const bool runs = job->more->fence != 0 && job->more->heard != nullptr;  // as far as was heard
  const bool back = is_back(*job, position);
  if (runs && !back) {
    return ask_for_rest(*job);
  }
  if (back) {
    begin_again(*job);
    job = find(*job_id);
    if (job == nullptr) {
      return;
    }
    job->more->fence = 0;
  }
  const auto now = static_cast<uint32_t>(std::min<int64_t>(position, UINT32_MAX));
  const bool starts = now == 0 && job->more->position != 0;
  job->more->position = now;
  if (starts || back) {
    subscribers_.tell_state(*job);
  }
  if (starts && job->more->heard != nullptr) {  // what it said as it began has not come
    heard_hole(*job_id);
  }
}

void Dispatcher::end_away(Job& job, const SharedOrder::Known& known) {
  JobRecord record;
  std::string_view answer;
  if (!decode(known, record, answer)) {
    record.end = end_of(job, JobStatus::kFailed);
    record.end.http_status = 503;
    record.end.error_code = "busy";
    record.end.error = "The job is lost: Redis has lost what it had.";
    if (job.more->recalled) {
      let_charge_stand(job);
    }
  }
  const JobEnd& end = record.end;
  record.end.id = job.id();
  if (job.more->is_foretold) {
    learn_away(*job.home(), job.more->foretold, record);
  }
  Answer& kept = job.more->answer;
  kept = {};
  kept.status = end.http_status;
  kept.content_type = end.content_type;
  kept.headers = end.headers;
  kept.append(answer);
  kept.bytes = answer.empty() ? 0 : record.result_bytes;  // of which this may be the end alone
  tell_end(job, record, known.fence);
  ended(job, end);
}

// Its end is heard of as any other.
void Dispatcher::cancel_away(Job& job, const UsageCounts* spent) {
  SharedQueue& queue = *shared(*job.home()->queue);
  count(job, Metrics::Event::kCancelled);
  const JobRecord& record = *job.more->keep;
  queue.see_cancelled(job.id().view(), encode(record, {}), keep_ms(record),
                      [this, &queue, id = job.id(), key = usage_key(job),
                       used = usage_of_cancelled(spent)](bool by_us) {
                        usage_.add(key, by_us ? used : UsageCounts());
                        look_for_end(queue, id);
                      });
}

// ---- jobs that run here

// For each lane whose workers have credit, and where nothing waits here. Lanes of one device ask in
// turn, the one first that has not asked for longest: what comes for one fills the slots of all.
void Dispatcher::ask_for_shared() {
  std::vector<Scheduler::Lane*> lanes;
  workers_.each([&](const WorkerSession& worker) {
    Scheduler::Lane& lane = worker.lane();
    SharedQueue* const queue = shared(*lane.queue);
    if (queue != nullptr && worker.credit() > 0 && !draining_ && !lane.queue->paused &&
        !lane.queue->retired && Scheduler::next(lane) == nullptr && queue->may_serve(lane.model) &&
        std::find(lanes.begin(), lanes.end(), &lane) == lanes.end()) {
      lanes.push_back(&lane);
    }
  });
  std::sort(lanes.begin(), lanes.end(),
            [&](const auto* a, const auto* b) { return asked_turn_[a] < asked_turn_[b]; });
  const auto coming = [this](const Scheduler::Lane& other) {
    const SharedQueue* const queue = shared(*other.queue);
    return queue == nullptr ? 0 : queue->coming(other.model);
  };
  for (const Scheduler::Lane* const lane : lanes) {
    if (const size_t room = workers_.room(*lane, suspects_, coming, connections_.now_ns());
        room > 0) {
      shared(*lane->queue)->serve(lane->model, room);
      asked_turn_[lane] = ++asked_turns_;
    }
  }
  shared_->flush();
}

void Dispatcher::on_taken(SharedQueue& queue, const SharedOrder::Taken& taken) {
  JobRecord record;
  std::string_view frame;
  Scheduler::Queue* const its = scheduler_.find_queue(queue.name());
  if (its == nullptr || draining_) {
    return queue.give_back(taken.id, 0, std::nullopt);
  }
  if (!decode(taken.body, record, frame) || frame.empty() || record.id.view() != taken.id) {
    log(Level::kError, "queue " + queue.name() + ": what Redis has of job " + taken.id +
                           " is no job; it is dropped");
    return queue.finish(taken.id, {}, kBriefMs, 'D', [](SharedOrder::End) {});
  }
  Job* job = find(record.id);
  if (job != nullptr && job->shared) {  // Redis had lost that; it goes on
    job->more->fence = taken.fence;
    job->more->restarts = 0;
    return tell_from_start(*job, queue, taken);
  }
  if (job != nullptr && (!job->away || job->looking_up)) {  // its promise is still to be made
    early_[taken.id] = {&queue, taken};
    return;
  }
  Scheduler::Lane& lane = scheduler_.lane(*its, taken.lane);
  if (!has_worker(lane)) {  // they left since it was asked for
    return queue.give_back(taken.id, 0, std::nullopt);
  }
  if (job == nullptr) {
    job = &jobs_.add(ulid_of(record.id));
    job->created_ms = record.created_ms;
    job->owner = record.owner.lo;
    job->promise = PromiseState::kMade;
    job->extra().label = record.label;
  }
  if (job->away) {
    begin_again(*job);
    job = find(record.id);
    if (job == nullptr) {
      return;  // nobody wants it any more
    }
  }
  queue.unwatch(taken.id);
  job->away = false;
  job->shared = true;
  job->keeps_answer = true;
  job->answer_began = job->answer_fails = false;
  job->extra().home = nullptr;
  job->more->heard.reset();
  job->more->trace = parse_trace(record.trace);
  job->more->fence = taken.fence;
  job->more->restarts = 0;
  hold(*job, std::string(frame));
  const int64_t now_ns = connections_.now_ns();
  const int64_t waited_ms = std::max<int64_t>(time_.ms() - taken.came_us / 1000, 0);
  scheduler_.add(*job, lane,
                 {.owner = taken.owner,
                  .priority = record.priority,
                  .cost = record.cost,
                  .weight = record.weight,
                  .arrived_ns = now_ns - waited_ms * kNsPerMs,
                  .deadline_ns = INT64_MAX,  // Redis's to keep
                  .attempts = taken.attempts,
                  .force = true},
                 now_ns);
  job->more->keep = std::make_unique<JobRecord>(std::move(record));
  job->tells = true;
  tell_from_start(*job, queue, taken);
  offer(lane);
}

// It was taken, and is not promised after all.
void Dispatcher::refuse_early(const Job& job) {
  const auto early = early_.extract(text_of(job));
  if (!early.empty() && early.mapped().is_ours()) {
    early.mapped().queue->give_back(early.key(), 0, std::nullopt);
  }
}

// Others cancelled it, its deadline has passed, or this host has lost its lease.
void Dispatcher::on_lost(SharedQueue& queue, const std::string& id) {
  const auto job_id = parse_job_id(id);
  Job* const job = job_id ? find(*job_id) : nullptr;
  if (job == nullptr || !job->shared || job->ending) {
    return;
  }
  revoke(*job);
  if (job->answer_began) {
    subscribers_.fail(*job, {.status = 502,
                             .code = "engine_failed",
                             .message = "The answer was cut short: the job is over, or another "
                                        "host's."});
    job->answer_began = job->answer_fails = false;
  }
  job->more->has_progress = false;
  job->more->preview.reset();
  if (job->promise == PromiseState::kNone && !Subscribers::wanted(*job)) {
    cancel_for_nobody(queue, *job);
  }
  send_away(*job);
}

void Dispatcher::give_back(Job& job, std::optional<Scheduler::Cause> cause) {
  shared(*job.home()->queue)->give_back(text_of(job), job.attempts(), cause);
  send_away(job);
}

// What waits here for a worker that is not there, or may not start it, is for another host.
// Suspects stay, as they are to run alone; but not for workers that do not come back.
void Dispatcher::give_back_idle() {
  if (shared_ == nullptr) {
    return;
  }
  jobs_.each([this](Job& job) {
    if (!job.shared || job.ending || job.worker() != nullptr || job.lane() == nullptr) {
      return;
    }
    const Scheduler::Lane& lane = *job.lane();
    const bool suspect = job.more->suspect != 0;
    if (suspect && served_.attended(lane, connections_.now_ns(), limits_.worker_grace_ns)) {
      return;
    }
    if (!has_worker(lane) || (!suspect && lane.queue->paused) || lane.queue->retired) {
      give_back(job, suspect ? std::optional(Scheduler::Cause::kWorkerLost) : std::nullopt);
    }
  });
}

bool Dispatcher::is_too_large(const Job& job) const {
  return job.shared && job.more->answer.bytes >
                           std::min(shared_->results() != nullptr ? UINT64_MAX : kMostSharedResult,
                                    static_cast<uint64_t>(limits_.max_result_bytes));
}

// Nobody is told of the end before Redis has it.
void Dispatcher::conclude_shared(Job& job, JobEnd end) {
  say_end(job, {});
  job.ending = true;
  ending_ += job.promise == PromiseState::kNone ? 0 : 1;
  JobRecord record = *job.more->keep;
  record.status = end.status;
  record.end = end;
  record.restarts = job.more->restarts;
  if (end.answered() && shared_->results() != nullptr &&
      shared_->results()->wants(job.more->answer.bytes)) {
    return store_shared(job, std::move(record));
  }
  const std::string_view answer = end.answered() ? job.more->answer.tail : std::string_view();
  const bool dead = end.dead && !record.brief;
  const bool for_others = end.status == JobStatus::kCompleted && record.earlier != limit::Hash128{};
  const char letter = dead ? 'X' : 'D';
  shared(*job.home()->queue)
      ->finish(text_of(job), encode(record, answer),
               dead         ? limits_.keep_dead_ns / kNsPerMs
               : for_others ? 0
                            : keep_ms(record),
               letter,
               [this, end = std::move(end)](SharedOrder::End how) { ended_shared(end, how); });
}

// Another end than this counts where it was over, or is another host's.
void Dispatcher::ended_shared(const JobEnd& end, SharedOrder::End how) {
  Job* const job = find(end.id);
  if (job == nullptr || !job->ending) {
    return;
  }
  if (how == SharedOrder::End::kEnded) {
    count_shared(*job, end);
    const JobRecord& record = *job->more->keep;
    if (end.status == JobStatus::kCompleted && record.earlier != limit::Hash128{}) {
      shared(*job->home()->queue)->order().completed(hex(record.earlier), end.id.view(), 0);
    }
    if (!record.callback.empty() && on_shared_callback_due) {
      on_shared_callback_due();
    }
    return ended(*job, end);
  }
  if (job->promise == PromiseState::kNone && !Subscribers::wanted(*job)) {
    cancel_for_nobody(*shared(*job->home()->queue), *job);
  }
  send_away(*job);
}

}  // namespace penstock::queue
