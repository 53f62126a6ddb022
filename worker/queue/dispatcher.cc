#include "worker/queue/dispatcher.h"

#include <algorithm>

#include "worker/queue/log.h"
#include "worker/queue/reply.h"
#include "worker/queue/seconds.h"

namespace penstock::queue {

using Promise = Job::Promise;
using Outcome = Scheduler::Outcome;

namespace {

constexpr uint64_t kBytesPerToken = 4;  // of most texts, nearly
constexpr std::string_view kCutShort = "The answer was cut short. ";

// What was charged for its request is the job's from now on.
bool holds_promise(const Waiter& waiter) {
  return waiter.kind == Waiter::Kind::kPromise && !waiter.duplicate;
}

// The number by which the edge knows a job: its id's random end.
uint64_t number_of(const Job& job) {
  return load_le<uint64_t>(job.id.text + JobId::kBytes - sizeof(uint64_t));
}

}  // namespace

int64_t unix_ms_now() { return realtime_ns() / kNsPerMs; }

Dispatcher::Dispatcher(Wires& wires, int64_t (*wall_ms)())
    : wires_(wires),
      wall_ms_(wall_ms),
      audience_(wires, scheduler_, wall_ms),
      edges_([this](const auto& hold) {
        jobs_.each([&](const Job& job) {
          if (job.more != nullptr && !job.more->receipt.empty() && !job.ending &&
              job.promise == Promise::kMade) {
            hold(number_of(job), job.more->receipt);
          }
        });
      }) {}

void Dispatcher::use(Store& store) { store_ = &store; }

void Dispatcher::apply(const Config& config) {
  for (const QueueConfig& queue : config.queues) {
    scheduler_.set_queue({.name = queue.name,
                          .max_length = queue.max_length,
                          .max_per_owner = queue.max_per_owner,
                          .attempts = queue.attempts,
                          .deadline_ns = queue.deadline_ns,
                          .backoff_ns = queue.backoff_ns,
                          .aging_ns = queue.aging_ns});
    queue_configs_[queue.name] = queue;
  }
  roster_.assign(config, scheduler_);
  limits_ = config.limits;
  audience_.set_max_unsent(limits_.max_unsent_bytes);
  wires_.limits().submit_bytes = static_cast<uint32_t>(limits_.max_body_bytes + (64 << 10));
  fail_unserved();
}

// What was promised waits for a worker to come back.
void Dispatcher::fail_unserved() {
  jobs_.each([this](Job& job) {
    if (job.promise == Promise::kNone && job.lane() != nullptr && job.worker == nullptr &&
        !job.ending && roster_.find(*job.lane()->queue, job.lane()->model) == nullptr) {
      end_with(job, JobStatus::kFailed,
               {.status = 404, .code = "not_found", .message = "The model is not served any more."});
    }
  });
}

// ---- in ----

Job& Dispatcher::let_in(Waiter& waiter, const limit::Hash128& owner, std::string frame) {
  auto fresh = std::make_unique<Job>();
  fresh->id = ids_.make(wall_ms_());
  fresh->owner = owner;
  Job& job = jobs_.add(std::move(fresh));
  ++unpromised_;
  hold(job, std::move(frame));
  audience_.join(waiter, job);
  return job;
}

void Dispatcher::enqueue(Job& job, Scheduler::Lane& lane, const Scheduler::Claim& claim) {
  scheduler_.add(job, lane, claim, wires_.now_ns());
  ++counters_.accepted;
  offer(lane);
}

void Dispatcher::promise(Job& job, JobRecord record) {
  record.id = job.id;
  job.promise = Promise::kAsked;
  job.keeps_answer = true;
  --unpromised_;
  job.more->receipt = record.receipt;
  std::string frame = job.more->frame;
  if (job.worker != nullptr) {  // a free slot has it already, and need not wait for the disk
    let_go(job);
  }
  store_->promise(std::move(record), std::move(frame),
                  [this, id = job.id](Store::Promise outcome) { promised(id, outcome); });
}

void Dispatcher::promised(const JobId& id, Store::Promise outcome) {
  Job* const job = jobs_.find(id.view());
  if (job == nullptr) {
    return;
  }
  if (outcome != Store::Promise::kStored) {
    const std::string message = outcome == Store::Promise::kFull
                                    ? "There is no room on disk for another job."
                                    : "The job could not be written to disk.";
    return withdraw(*job, {.status = 503, .code = "busy", .message = message, .retry_after_s = 10});
  }
  job->promise = Promise::kMade;
  ++counters_.promised;
  if (!job->more->receipt.empty() && !job->ending) {
    edges_.hold(number_of(*job), job->more->receipt);
  }
  if (held_bytes_ > kWarmBytes && job->worker == nullptr) {
    let_go(*job);
  }
  for (Waiter* waiter = job->waiters; waiter != nullptr && !job->ending;) {
    Waiter* const next = waiter->next;
    if (waiter->kind == Waiter::Kind::kPromise) {
      say_promised(*waiter, *job);
    }
    waiter = next;
  }
  trim(*job);
}

// The promise could not be made: as if it had never come.
void Dispatcher::withdraw(Job& job, const wire::Failed& failed) {
  revoke(job);
  --counters_.accepted;
  ++counters_.refused;
  for (Waiter* waiter = job.waiters; waiter != nullptr;) {
    Waiter* const next = waiter->next;
    wire::append(waiter->caller->out(), waiter->id, failed);
    audience_.leave(*waiter);
    waiter = next;
  }
  scheduler_.finish(job, Outcome::kCancelled, wires_.now_ns());
  erase(job);
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
  while (job.waiters != nullptr) {
    audience_.leave(*job.waiters);
  }
  erase(job);
}

void Dispatcher::restore(JobRecord&& record) {
  Scheduler::Queue* const queue = scheduler_.find_queue(record.queue);
  if (queue == nullptr) {
    JobEnd end = record.end;
    end.id = record.id;
    end.status = JobStatus::kFailed;
    end.dead = true;
    end.finished_ms = wall_ms_();
    end.expires_ms = end.finished_ms + limits_.keep_dead_ns / kNsPerMs;
    end.http_status = 502;
    end.error_code = "engine_failed";
    end.error = "There is no queue '" + record.queue + "' any more.";
    log(Level::kWarn, "job " + std::string(record.id.view()) + " is dead: " + end.error);
    ++counters_.dead;
    return store_->finish(std::move(end), {}, [] {});
  }
  auto fresh = std::make_unique<Job>();
  fresh->id = record.id;
  fresh->owner = record.owner;
  fresh->promise = Promise::kMade;
  fresh->keeps_answer = true;
  Job& job = jobs_.add(std::move(fresh));
  if (record.key != limit::Hash128{}) {
    register_key(job, record.key, record.digest);
  }
  if (!record.receipt.empty()) {
    job.extra().receipt = std::move(record.receipt);
    edges_.hold(number_of(job), job.more->receipt);
  }
  const int64_t now_ns = wires_.now_ns();
  const int64_t now_ms = wall_ms_();
  const auto steady = [&](int64_t ms) { return ms == 0 ? 0 : now_ns + (ms - now_ms) * kNsPerMs; };
  Scheduler::Lane& lane = scheduler_.lane(*queue, record.model);
  scheduler_.add(job, lane,
                 {.owner = record.owner.lo,
                  .priority = record.priority,
                  .cost = record.cost,
                  .weight = record.weight,
                  .not_before_ns = record.not_before_ms > now_ms ? steady(record.not_before_ms) : 0,
                  .arrived_ns = steady(record.created_ms),
                  .deadline_ns = steady(record.deadline_ms),
                  .attempts = record.end.attempts,
                  .force = true},
                 now_ns);
  offer(lane);
}

// ---- frames in memory ----

void Dispatcher::hold(Job& job, std::string frame) {
  job.held_bytes = static_cast<uint32_t>(frame.size());
  held_bytes_ += job.held_bytes;
  job.extra().frame = std::move(frame);
}

void Dispatcher::let_go(Job& job) {
  held_bytes_ -= std::exchange(job.held_bytes, 0);
  if (job.more != nullptr) {
    job.more->frame = {};
  }
}

// Of most jobs that are queued, nothing more need be in memory.
void Dispatcher::trim(Job& job) {
  if (job.more != nullptr && job.held_bytes == 0 && job.worker == nullptr && !job.answer_began &&
      job.more->receipt.empty() && job.more->key == limit::Hash128{}) {
    job.more.reset();
  }
}

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
  recount(worker.lane());
}

void Dispatcher::worker_leaving(WorkerSession& worker) {
  roster_.leaving(worker.name());
  worker.drain();
}

void Dispatcher::worker_lost(WorkerSession& worker, int64_t next_start_ns) {
  roster_.lost(worker.name(), wires_.now_ns(), next_start_ns);
  if (std::erase(workers_, &worker) > 0) {
    recount(worker.lane());
  }
  while (worker.running() > 0) {
    Job& job = worker.any_job();
    worker.forget(job);
    put_back(job, Scheduler::Cause::kWorkerLost, "The worker stopped.");
  }
  fill_all();
}

void Dispatcher::recount(Scheduler::Lane& lane) {
  uint32_t capacity = 0;
  for (const WorkerSession* worker : workers_) {
    capacity += &worker->lane() == &lane ? worker->capacity() : 0;
  }
  scheduler_.set_capacity(lane, capacity);
}

uint32_t Dispatcher::slots(const Scheduler::Queue& queue) const {
  uint32_t slots = 0;
  for (const WorkerSession* worker : workers_) {
    slots += worker->lane().queue == &queue && !worker->draining() ? worker->slots() : 0;
  }
  return slots;
}

void Dispatcher::fill(WorkerSession& worker) {
  while (worker.credit() > 0 && !(draining_ && unpromised_ == 0)) {
    Scheduler::Ticket* const next = scheduler_.take(worker.lane(), wires_.now_ns());
    if (next == nullptr) {
      return;
    }
    auto& job = static_cast<Job&>(*next);
    worker.assign(job, ++last_number_);
    if (job.held_bytes > 0) {
      deliver(job);
    } else {
      store_->fetch(job.id, [this, id = job.id, number = job.number](Result<std::string> frame) {
        fetched(id, number, std::move(frame));
      });
    }
    audience_.tell_state(job);
  }
}

void Dispatcher::fetched(const JobId& id, uint64_t number, Result<std::string> frame) {
  Job* const job = jobs_.find(id.view());
  if (job == nullptr || job->worker == nullptr || job->number != number) {
    return;  // cancelled, or its worker was lost
  }
  if (!frame) {
    WorkerSession& worker = *job->worker;
    log(Level::kError, frame.error().message);
    revoke(*job);
    put_back(*job, Scheduler::Cause::kJobFailed, "Its request could not be read from disk.");
    return fill(worker);
  }
  hold(*job, *std::move(frame));
  deliver(*job);
}

// REQUIRES: its frame is in memory.
void Dispatcher::deliver(Job& job) {
  job.worker->send(job, job.more->frame);
  if (job.promise != Promise::kNone) {  // the store has it
    let_go(job);
  }
}

void Dispatcher::revoke(Job& job) {
  if (job.worker != nullptr) {
    job.worker->revoke(job);
  }
}

void Dispatcher::pause(Scheduler::Queue& queue) { scheduler_.pause(queue); }

void Dispatcher::resume(Scheduler::Queue& queue) {
  scheduler_.resume(queue);
  fill_all();
}

void Dispatcher::fill_all() {
  for (WorkerSession* worker : workers_) {
    fill(*worker);
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
    fill(*best);
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
  if (job.promise == Promise::kNone && !Audience::wanted(job)) {
    abandon(job);
  }
}

// What is too large for the database goes to its file as it comes.
void Dispatcher::spill(Job& job) {
  Answer& answer = job.more->answer;
  if (store_ != nullptr && answer.bytes - answer.stored >= Store::kInlineBytes) {
    store_->append_result(job.id, answer.stored == 0, std::string(answer.from(answer.stored)));
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
}

void Dispatcher::complete(Job& job, const wire::Done& done, std::string_view frame) {
  job.worker->forget(job);
  ++counters_.completed;
  audience_.complete(job, frame);
  if (!job.keeps_answer && job.waiters == nullptr) {  // as of most that were waited for
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
  job.worker->forget(job);
  const Scheduler::Lane& lane = *job.lane();
  if (failed.retryable == 0) {
    ++counters_.failed;
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
      ++counters_.failed;
      return end_with(job, JobStatus::kFailed, cut);
    }
    audience_.fail(job, cut);  // whoever joined has seen some of it; the promise stands
    job.answer_began = false;
    job.more->answer = {};
  }
  if (job.more != nullptr) {
    job.more->has_progress = false;
  }
  if (scheduler_.retry(job, cause, wires_.now_ns())) {
    ++counters_.retried;
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
  ++counters_.failed;
  end_with(job, JobStatus::kFailed,
           {.status = 502, .code = "engine_failed", .message = message},
           job.promise != Promise::kNone);
}

// ---- the end ----

JobEnd Dispatcher::end_of(const Job& job, JobStatus status) const {
  JobEnd end;
  end.id = job.id;
  end.status = status;
  end.finished_ms = wall_ms_();
  end.attempts = job.attempts();
  if (job.state() == Scheduler::Ticket::State::kRunning) {
    end.started_ms = end.finished_ms - (wires_.now_ns() - job.started_ns()) / kNsPerMs;
  }
  if (end.started_ms != 0 && status == JobStatus::kCancelled) {  // what was done for it until now
    end.device_ns = static_cast<uint64_t>(wires_.now_ns() - job.started_ns());
    end.completion_tokens = job.keeps_answer ? job.more->answer.bytes / kBytesPerToken : 0;
  }
  const auto queue = queue_configs_.find(job.lane()->queue->settings.name);
  const int64_t keep_ns = queue == queue_configs_.end() ? 0 : queue->second.keep_results_ns;
  end.expires_ms = end.finished_ms + keep_ns / kNsPerMs;
  return end;
}

// There is no answer, for this reason. REQUIRES: no worker has it.
void Dispatcher::end_with(Job& job, JobStatus status, const wire::Failed& failed, bool dead) {
  JobEnd end = end_of(job, status);
  end.http_status = static_cast<uint16_t>(failed.status);
  end.error_code = failed.code;
  end.error = failed.message;
  end.dead = dead;
  if (dead) {
    ++counters_.dead;
    end.expires_ms = end.finished_ms + limits_.keep_dead_ns / kNsPerMs;
  }
  audience_.fail(job, failed);
  conclude(job, std::move(end), Outcome::kCancelled);
}

// Nobody is told of the end of what was promised before it is on disk.
void Dispatcher::conclude(Job& job, JobEnd end, Outcome outcome) {
  scheduler_.finish(job, outcome, wires_.now_ns());
  let_go(job);
  const bool kept = job.promise == Promise::kNone && job.more != nullptr &&
                    job.more->keep != nullptr && end.status == JobStatus::kCompleted;
  if (job.promise == Promise::kNone && !kept) {
    return ended(job, end);
  }
  job.ending = true;
  std::string rest;
  if (job.more != nullptr && end.status == JobStatus::kCompleted) {
    rest = job.more->answer.from(job.more->answer.stored);
  }
  const auto told = [this, end] {
    if (Job* const over = jobs_.find(end.id.view()); over != nullptr) {
      ended(*over, end);
    }
  };
  if (!kept) {
    return store_->finish(std::move(end), std::move(rest), told);
  }
  JobRecord record = std::move(*job.more->keep);
  record.id = job.id;
  record.status = end.status;
  record.end = std::move(end);
  store_->keep(std::move(record), std::move(rest), told);
}

void Dispatcher::ended(Job& job, const JobEnd& end) {
  JobView view{.id = job.id.view(),
               .status = end.status,
               .queue = job.lane()->queue->settings.name,
               .attempts = end.attempts,
               .created_ms = created_ms(job.id),
               .started_ms = end.started_ms,
               .finished_ms = end.finished_ms,
               .error_code = end.error_code,
               .error = end.error};
  audience_.end_events(job, view);
  while (job.waiters != nullptr) {
    Waiter& waiter = *job.waiters;
    if (waiter.kind == Waiter::Kind::kQuestion) {  // it asked for the end
      view.jobs_path = waiter.jobs_path;
      append_reply(waiter.caller->out(), waiter.id, {.status = 200, .content_type = kJson},
                   render(view));
    } else {
      answer_promise(waiter, job, end);
    }
    audience_.leave(waiter);
  }
  if (job.promise != Promise::kNone) {
    let_edge_settle(job, end);
    if (on_callback_due) {
      on_callback_due(job.id);
    }
  }
  erase(job);
}

void Dispatcher::let_edge_settle(Job& job, const JobEnd& end) {
  if (job.more == nullptr || job.more->receipt.empty()) {
    return;
  }
  const bool refund = end.status == JobStatus::kFailed || end.status == JobStatus::kExpired;
  edges_.over(number_of(job), {.receipt = job.more->receipt,
                               .refund = refund ? 1U : 0U,
                               .model = job.lane()->model,
                               .prompt_tokens = end.prompt_tokens,
                               .completion_tokens = end.completion_tokens,
                               .device_ns = end.device_ns});
}

// The job ended before its 202 was said, or within `wait=`.
void Dispatcher::answer_promise(Waiter& waiter, Job& job, const JobEnd& end) {
  std::string& out = waiter.caller->out();
  if (end.status != JobStatus::kCompleted) {
    wire::append(out, waiter.id,
                 wire::Failed{.status = end.http_status,
                              .code = end.error_code,
                              .message = end.error});
    return;
  }
  JobRecord record;
  record.id = job.id;
  record.end = end;
  record.result_bytes = job.more->answer.bytes;
  record.result_in_file = job.more->answer.stored > 0;
  say_accepted(waiter, job);
  answer_with_result(waiter, record, job.more->answer.tail,
                     waiter.duplicate ? kDuplicateHeader : std::string_view());
}

void Dispatcher::answer_with_result(Waiter& waiter, const JobRecord& record, std::string_view body,
                                    std::string_view headers) {
  std::string& out = waiter.caller->out();
  const wire::Head head{.status = record.end.http_status,
                        .content_type = record.end.content_type,
                        .headers = headers,
                        .promised = holds_promise(waiter) ? 1U : 0U,
                        .duplicate = waiter.duplicate ? 1U : 0U};
  if (record.result_in_file) {
    append_file_reply(out, waiter.id, head, store_->result_path(record.id), record.result_bytes);
  } else {
    append_reply(out, waiter.id, head, body);
  }
}

void Dispatcher::answer_from_store(Waiter& waiter, const JobRecord& record,
                                   std::string_view headers) {
  if (record.result_in_file) {
    answer_with_result(waiter, record, {}, headers);
    return audience_.leave(waiter);
  }
  Audience::ask(waiter);
  store_->read_result(record.id, [this, &waiter, record, headers = std::string(headers)](
                                     Result<std::string> body) {
    if (!audience_.answered(waiter)) {
      return;
    }
    if (body) {
      answer_with_result(waiter, record, *body, headers);
    } else {
      wire::append(waiter.caller->out(), waiter.id,
                   wire::Failed{.status = 404,
                                .code = "not_found",
                                .message = "The result is not there any more."});
    }
    audience_.leave(waiter);
  });
}

void Dispatcher::erase(Job& job) {
  let_go(job);
  if (job.more != nullptr && job.more->key != limit::Hash128{}) {
    if (const auto found = keys_.find(job.more->key.lo);
        found != keys_.end() && found->second == &job) {
      keys_.erase(found);
    }
  }
  unpromised_ -= job.promise == Promise::kNone ? 1 : 0;
  jobs_.erase(job);
}

// ---- from callers ----

void Dispatcher::release(Waiter& waiter) {
  Job* const job = waiter.job;
  audience_.leave(waiter);
  if (job != nullptr && job->promise == Promise::kNone && !job->ending && !Audience::wanted(*job)) {
    abandon(*job);
  }
}

// Nobody waits for it any more.
void Dispatcher::abandon(Job& job) {
  if (job.looking_up) {
    return forget(job);
  }
  revoke(job);
  ++counters_.cancelled;
  conclude(job, end_of(job, JobStatus::kCancelled), Outcome::kCancelled);
}

void Dispatcher::cancel(Job& job) {
  if (job.ending) {
    return;
  }
  revoke(job);
  ++counters_.cancelled;
  end_with(job, JobStatus::kCancelled,
           {.status = 410, .code = "cancelled", .message = "The job was cancelled."});
}

void Dispatcher::expire(Job& job) {
  revoke(job);
  ++counters_.expired;
  ++counters_.failed;
  end_with(job, JobStatus::kExpired,
           {.status = 504,
            .code = "deadline_exceeded",
            .message = "The job was not done by its deadline."});
}

size_t Dispatcher::unfinished() {
  size_t count = 0;
  jobs_.each([&](const Job& job) {
    count += job.promise == Promise::kNone || job.worker != nullptr || job.ending ? 1 : 0;
  });
  return count;
}

void Dispatcher::give_up() {
  const wire::Failed stopping{.status = 503,
                              .code = "busy",
                              .message = "The service is being stopped or restarted.",
                              .retry_after_s = static_cast<uint64_t>(kDrainRetrySeconds)};
  jobs_.each([&](Job& job) {
    if (job.ending) {
      return;
    }
    revoke(job);
    if (job.promise == Promise::kNone) {
      if (job.looking_up) {
        audience_.fail(job, stopping);
        return forget(job);
      }
      ++counters_.failed;
      return end_with(job, JobStatus::kFailed, stopping);
    }
    while (job.waiters != nullptr) {
      Waiter& waiter = *job.waiters;
      if (waiter.kind == Waiter::Kind::kPromise && job.promise == Promise::kMade) {
        waiter.wait_ns = 0;
        say_promised(waiter, job);
      } else {
        wire::append(waiter.caller->out(), waiter.id, stopping);
        audience_.leave(waiter);
      }
    }
  });
}

// ---- what is said ----

std::string Dispatcher::jobs_url(const Waiter& waiter, const Job& job) const {
  return waiter.jobs_path + "/" + std::string(job.id.view());
}

// A job that starts at once will soon be answered; its ACCEPTED leaves with the answer if that is
// quick. Its caller has nothing to do with it before, and is spared a wake-up.
void Dispatcher::say_accepted(Waiter& waiter, const Job& job, bool at_leisure) {
  std::string& out = at_leisure ? waiter.caller->out_held() : waiter.caller->out();
  const bool known = job.lane() != nullptr && !job.ending;
  const int64_t wait_ns = known ? scheduler_.predicted_wait_ns(job, wires_.now_ns()) : 0;
  wire::append(out, waiter.id,
               wire::Accepted{job.id.view(), known ? scheduler_.position(job) : 0,
                              static_cast<uint64_t>(wait_ns / kNsPerMs)});
}

// With `wait=`, only once that is over.
void Dispatcher::say_promised(Waiter& waiter, const Job& job) {
  if (waiter.wait_ns > 0) {
    waiter.wait_ends_ns = wires_.now_ns() + std::exchange(waiter.wait_ns, 0);
    return audience_.set_wait(waiter);
  }
  say_accepted(waiter, job);
  const JobView view = audience_.view(job, waiter.jobs_path);
  const std::string headers = "Location: " + jobs_url(waiter, job) +
                              "\nPreference-Applied: respond-async\nRetry-After: " +
                              std::to_string(poll_after_s(view.eta_seconds.value_or(0))) + "\n" +
                              std::string(waiter.duplicate ? kDuplicateHeader : "");
  append_reply(waiter.caller->out(), waiter.id,
               {.status = 202,
                .content_type = kJson,
                .headers = headers,
                .promised = holds_promise(waiter) ? 1U : 0U,
                .duplicate = waiter.duplicate ? 1U : 0U},
               render(view));
  audience_.leave(waiter);
}

// ---- time ----

void Dispatcher::advance_to(int64_t now_ns) {
  const bool due = scheduler_.next_event() <= now_ns;
  if (due) {
    expired_.clear();
    scheduler_.advance_to(now_ns, expired_);
    for (const Scheduler::Expired& each : expired_) {
      expire(static_cast<Job&>(*each.ticket));
    }
    fill_all();  // back-offs ended, perhaps
  }
  over_.clear();
  audience_.advance_to(now_ns, over_);
  for (Waiter* waiter : over_) {
    say_promised(*waiter, *waiter->job);
  }
}

int64_t Dispatcher::next_event() const {
  return std::min(scheduler_.next_event(), audience_.next_event());
}

}  // namespace penstock::queue
