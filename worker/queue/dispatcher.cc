#include "worker/queue/dispatcher.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "worker/queue/models_answer.h"

namespace penstock::queue {
namespace {

constexpr size_t kMaxShownBytes = 100;   // of a name the caller sent
constexpr size_t kMaxListedBytes = 600;  // of the names it could have sent
constexpr int64_t kDrainRetrySeconds = 5;
constexpr int64_t kMaxRetrySeconds = 3600;

// Changes the owner's field into a tag nobody knows, and wipes it. In place, so that a large body
// behind it is not moved. Workers have no use for who asked, and are not told.
void wipe_owner(std::string& frame, size_t at, size_t size) {
  if (size > 0) {
    wire::write_field_header(frame.data() + at - wire::kFieldHeaderBytes, 0,
                             static_cast<uint32_t>(size));
    std::fill_n(frame.begin() + static_cast<ptrdiff_t>(at), size, '\0');
  }
}

std::string quoted(std::string_view name) {
  return "'" + std::string(name.substr(0, kMaxShownBytes)) + "'";
}

std::string listed(const std::vector<std::string_view>& names) {
  std::string list;
  for (const std::string_view name : names) {
    if (list.size() + name.size() > kMaxListedBytes) {
      return list + ", ...";
    }
    list += (list.empty() ? "" : ", ") + std::string(name);
  }
  return list.empty() ? "none" : list;
}

// Owners are known by a hash under it, which means nothing outside this process.
limit::Secret draw_secret() {
  limit::Secret secret;
  ssize_t got = 0;
  do {
    got = ::getrandom(&secret, sizeof secret, 0);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(sizeof secret)) {
    std::abort();
  }
  return secret;
}

int64_t whole_seconds(int64_t ns) {
  return std::clamp<int64_t>((ns + kNsPerSec - 1) / kNsPerSec, 1, kMaxRetrySeconds);
}

}  // namespace

Dispatcher::Dispatcher(Wires& wires, int64_t start_unix_s)
    : wires_(wires), start_unix_s_(start_unix_s), secret_(draw_secret()) {}

void Dispatcher::apply(const Config& config) {
  for (const QueueConfig& queue : config.queues) {
    scheduler_.set_queue({.name = queue.name,
                          .max_length = queue.max_length,
                          .max_per_owner = queue.max_per_owner,
                          .attempts = queue.attempts,
                          .deadline_ns = queue.deadline_ns,
                          .backoff_ns = queue.backoff_ns,
                          .aging_ns = queue.aging_ns});
  }
  roster_.assign(config, scheduler_);
  limits_ = config.limits;
  wires_.limits().submit_bytes = static_cast<uint32_t>(limits_.max_body_bytes + (64 << 10));
  fail_unserved();
}

void Dispatcher::fail_unserved() {
  for (auto it = jobs_.begin(); it != jobs_.end();) {
    Job& job = *it++;
    if (job.worker == nullptr && roster_.find(*job.lane()->queue, job.lane()->model) == nullptr) {
      end(job,
          {.status = 404, .code = "not_found", .message = "The model is not served any more."});
    }
  }
}

void Dispatcher::submit(CallerSession& caller, uint64_t caller_job, const wire::Submit& submit,
                        std::string_view bytes) {
  Scheduler::Lane* const lane = route(caller, caller_job, submit);
  if (lane == nullptr) {
    return;
  }
  if (submit.body.size() > static_cast<uint64_t>(limits_.max_body_bytes)) {
    return refuse_oversized(caller, caller_job, submit.body.size());
  }
  const Availability now = availability(*lane);
  if (now.state != wire::QueueState::kOpen) {
    return refuse_busy(caller, caller_job, *lane, now);
  }
  const Scheduler::Claim claim{.owner = limit::siphash13_128(secret_, submit.owner).lo,
                               .priority = submit.priority,
                               .cost = submit.cost,
                               .weight = submit.weight};
  if (Scheduler::full(*lane->queue, claim.owner)) {
    return refuse_owner(caller, caller_job, *lane, claim);
  }
  if (held_bytes_ + static_cast<int64_t>(bytes.size()) > limits_.max_held_bytes) {
    return refuse_busy(
        caller, caller_job, *lane,
        {wire::QueueState::kFull, whole_seconds(wait_for_newcomer_ns(*lane->queue))});
  }
  accept(caller, caller_job, submit, bytes, *lane, claim);
}

Scheduler::Lane* Dispatcher::route(CallerSession& caller, uint64_t caller_job,
                                   const wire::Submit& submit) {
  const std::string_view name = submit.queue.empty() ? "default" : submit.queue;
  Scheduler::Queue* const queue = scheduler_.find_queue(name);
  if (queue == nullptr) {
    const std::string message = "There is no queue " + quoted(name) + ".";
    refuse(caller, caller_job, {.status = 404, .code = "not_found", .message = message});
    return nullptr;
  }
  std::string_view model = submit.model;
  const auto asked = models_path(submit.path);
  const bool get = submit.method == "GET" || submit.method == "HEAD";
  if (get && asked) {
    model = *asked;
  } else if (!submit.method.empty() && submit.method != "POST") {
    const std::string message =
        "The method " + quoted(submit.method) + " is not allowed here; jobs come by POST.";
    refuse(caller, caller_job, {.status = 405, .code = "method_not_allowed", .message = message});
    return nullptr;
  }
  Scheduler::Lane* const lane = roster_.find(*queue, model);
  if (lane == nullptr) {
    const std::string message = "No worker of queue " + queue->settings.name + " serves model " +
                                quoted(model) +
                                ". Models served: " + listed(roster_.models(*queue)) + ".";
    refuse(caller, caller_job,
           {.status = 404, .code = "not_found", .message = message, .param = "model"});
    return nullptr;
  }
  if (!get) {
    return lane;
  }
  model.empty() ? append_models(caller.out(), caller_job, roster_.models(*queue), start_unix_s_)
                : append_model(caller.out(), caller_job, lane->model, start_unix_s_);
  return nullptr;
}

void Dispatcher::accept(CallerSession& caller, uint64_t caller_job, const wire::Submit& submit,
                        std::string_view bytes, Scheduler::Lane& lane,
                        const Scheduler::Claim& claim) {
  const int64_t now_ns = wires_.now_ns();
  Job& job = jobs_.emplace_back();
  job.self = std::prev(jobs_.end());
  job.caller = &caller;
  job.caller_job = caller_job;
  job.frame = bytes;
  wipe_owner(job.frame, static_cast<size_t>(submit.owner.data() - bytes.data()),
             submit.owner.size());
  job.id = ids_.make(realtime_ns() / kNsPerMs);
  job.sign_due_ns = now_ns + kSignOfLifeNs;
  held_bytes_ += static_cast<int64_t>(job.frame.size());
  job.held_bytes = static_cast<uint32_t>(job.frame.size());
  caller.remember(job);
  scheduler_.add(job, lane, claim, now_ns);  // there is room: submit() looked
  ++counters_.accepted;
  offer(lane);
  say_accepted(job);
}

// A job that starts at once will soon be answered; its ACCEPTED leaves with the answer if that is
// quick. Its caller has nothing to do with it before, and is spared a wake-up.
void Dispatcher::say_accepted(Job& job) {
  std::string& out = job.worker != nullptr ? job.caller->out_held() : job.caller->out();
  wire::append(out, job.caller_job,
               wire::Accepted{job.id.view(), scheduler_.position(job), wait_ms(job)});
}

uint64_t Dispatcher::wait_ms(const Job& job) const {
  return static_cast<uint64_t>(scheduler_.predicted_wait_ns(job, wires_.now_ns()) / kNsPerMs);
}

int64_t Dispatcher::wait_for_newcomer_ns(Scheduler::Queue& queue) const {
  return scheduler_.predicted_wait_ns(queue.any_model(), wires_.now_ns());
}

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

void Dispatcher::give_up() {
  while (!jobs_.empty()) {
    Job& job = jobs_.front();
    if (job.worker != nullptr) {
      job.worker->revoke(job);
    }
    end(job, {.status = 503,
              .code = "busy",
              .message = "The service is being stopped or restarted.",
              .retry_after_s = static_cast<uint64_t>(kDrainRetrySeconds)});
  }
}

void Dispatcher::refuse(CallerSession& caller, uint64_t caller_job, const wire::Failed& failed) {
  ++counters_.refused;
  wire::append(caller.out(), caller_job, failed);
}

void Dispatcher::refuse_busy(CallerSession& caller, uint64_t caller_job,
                             const Scheduler::Lane& lane, const Availability& availability) {
  const std::string& queue = lane.queue->settings.name;
  std::string message;
  switch (availability.state) {
    case wire::QueueState::kDraining:
      message = "The service is being stopped or restarted.";
      break;
    case wire::QueueState::kNoWorker:
      message = "No worker of queue " + queue + " is up.";
      break;
    default:
      message = "Queue " + queue + " is full.";
  }
  message += " Try again in " + std::to_string(availability.retry_after_s) + " s.";
  refuse(caller, caller_job,
         {.status = 503,
          .code = "busy",
          .message = message,
          .retry_after_s = static_cast<uint64_t>(availability.retry_after_s)});
}

// A place of the owner's is free when its next job starts: about one N-th of the way to where one
// more would stand behind N.
void Dispatcher::refuse_owner(CallerSession& caller, uint64_t caller_job,
                              const Scheduler::Lane& lane, const Scheduler::Claim& claim) {
  const Scheduler::QueueSettings& settings = lane.queue->settings;
  const int64_t wait_ns = scheduler_.predicted_wait_ns(lane, claim, wires_.now_ns());
  const int64_t retry_after_s = whole_seconds(wait_ns / (int64_t{settings.max_per_owner} + 1));
  const std::string message = "You have " + std::to_string(settings.max_per_owner) +
                              " jobs waiting in queue " + settings.name +
                              ", as many as one caller may have. Try again in " +
                              std::to_string(retry_after_s) + " s.";
  refuse(caller, caller_job,
         {.status = 503,
          .code = "busy",
          .message = message,
          .retry_after_s = static_cast<uint64_t>(retry_after_s)});
}

void Dispatcher::refuse_crowded(CallerSession& caller, uint64_t caller_job) {
  refuse(caller, caller_job,
         {.status = 503,
          .code = "busy",
          .message = "Too many jobs are in flight on this connection; at most 1024 are.",
          .retry_after_s = 1});
}

void Dispatcher::refuse_oversized(CallerSession& caller, uint64_t caller_job, uint64_t bytes) {
  const std::string message = "The body has " + std::to_string(bytes) + " bytes; at most " +
                              std::to_string(limits_.max_body_bytes) + " are taken.";
  refuse(caller, caller_job, {.status = 413, .code = "too_large", .message = message});
}

void Dispatcher::abandon(Job& job) {
  if (job.worker != nullptr) {
    job.worker->revoke(job);
  }
  ++counters_.cancelled;
  erase(job, Scheduler::Outcome::kCancelled);
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

// The attempt failed. Whoever calls this sees to it that a worker with credit takes the job.
// REQUIRES: no worker has it.
void Dispatcher::put_back(Job& job, Scheduler::Cause cause, std::string_view why) {
  if (job.answer_began) {
    const std::string message = "The answer was cut short. " + std::string(why);
    return end(job, {.status = 502, .code = "engine_failed", .message = message});
  }
  if (scheduler_.retry(job, cause, wires_.now_ns())) {
    ++counters_.retried;
    return;
  }
  const uint32_t attempts = job.attempts();
  const std::string message =
      (attempts == 1 ? std::string("The worker failed the only attempt. ")
                     : "The worker failed all " + std::to_string(attempts) + " attempts. ") +
      std::string(why);
  end(job, {.status = 502, .code = "engine_failed", .message = message});
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
  while (worker.credit() > 0) {
    Scheduler::Ticket* const next = scheduler_.take(worker.lane(), wires_.now_ns());
    if (next == nullptr) {
      return;
    }
    worker.give(static_cast<Job&>(*next), ++last_number_);
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

void Dispatcher::forward(Job& job, std::string_view bytes) {
  std::string& out = job.caller->out();
  out.append(bytes);
  wire::set_frame_id(out.data() + out.size() - bytes.size(), job.caller_job);
  if (job.caller->unsent() <= static_cast<size_t>(limits_.max_unsent_bytes)) {
    return;
  }
  job.worker->revoke(job);
  ++counters_.cancelled;
  wire::append(out, job.caller_job,
               wire::Failed{.status = 502,
                            .code = "engine_failed",
                            .message = "The answer was cut short: it was not read fast enough."});
  erase(job, Scheduler::Outcome::kCancelled);
}

void Dispatcher::complete(Job& job, std::string_view bytes) {
  std::string& out = job.caller->out();
  out.append(bytes);
  wire::set_frame_id(out.data() + out.size() - bytes.size(), job.caller_job);
  job.worker->forget(job);
  ++counters_.completed;
  erase(job, Scheduler::Outcome::kCompleted);
}

void Dispatcher::fail(Job& job, const wire::Failed& failed) {
  job.worker->forget(job);
  if (failed.retryable == 0) {
    return end(job, failed);
  }
  const Scheduler::Lane& lane = *job.lane();
  put_back(job, Scheduler::Cause::kJobFailed, failed.message);
  offer(lane);
}

// The caller is told that the job is over. REQUIRES: no worker has it.
void Dispatcher::end(Job& job, const wire::Failed& failed) {
  ++counters_.failed;
  wire::append(job.caller->out(), job.caller_job, failed);
  erase(job, Scheduler::Outcome::kCancelled);
}

void Dispatcher::erase(Job& job, Scheduler::Outcome outcome) {
  scheduler_.finish(job, outcome, wires_.now_ns());
  job.caller->forget(job);
  held_bytes_ -= job.held_bytes;
  jobs_.erase(job.self);
}

void Dispatcher::expire(Job& job) {
  if (job.worker != nullptr) {
    job.worker->revoke(job);
  }
  ++counters_.expired;
  end(job, {.status = 504,
            .code = "deadline_exceeded",
            .message = "The job was not done by its deadline."});
}

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
  while (!jobs_.empty() && jobs_.front().sign_due_ns <= now_ns) {
    Job& job = jobs_.front();
    if (!job.caller->clogged()) {  // else it has something to read already
      wire::append(job.caller->out(), job.caller_job,
                   wire::Progress{0, scheduler_.position(job), wait_ms(job)});
    }
    job.sign_due_ns = now_ns + kSignOfLifeNs;
    jobs_.splice(jobs_.end(), jobs_, job.self);
  }
}

int64_t Dispatcher::next_event() const {
  return std::min(scheduler_.next_event(), jobs_.empty() ? INT64_MAX : jobs_.front().sign_due_ns);
}

}  // namespace penstock::queue
