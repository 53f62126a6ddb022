// Dispatcher: how jobs end, and who is told.
#include <algorithm>

#include "worker/queue/jobs/caller.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/jobs/end_line.h"
#include "worker/queue/text/log.h"
#include "worker/queue/text/reply.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {

using PromiseState = Job::PromiseState;
using Outcome = Scheduler::Outcome;

namespace {

constexpr uint64_t kBytesPerToken = 4;  // of most texts, nearly

}  // namespace

// Since 1970. REQUIRES: it runs.
int64_t Dispatcher::started_ms(const Job& job) const {
  return time_.ms() - (connections_.now_ns() - job.started_ns()) / kNsPerMs;
}

JobEnd Dispatcher::end_of(const Job& job, JobStatus status) const {
  JobEnd end;
  end.id = job.id();
  end.status = status;
  end.finished_ms = time_.ms();
  end.attempts = job.attempts();
  if (job.state() == Scheduler::Ticket::State::kRunning) {
    end.started_ms = started_ms(job);
  }
  if (end.started_ms != 0 && status == JobStatus::kCancelled) {  // what was done for it until now
    end.device_ns = static_cast<uint64_t>(connections_.now_ns() - job.started_ns());
    end.completion_tokens = job.keeps_answer ? job.more->answer.bytes / kBytesPerToken : 0;
    end.estimated = true;
  }
  const QueueConfig& queue = notes_.at(job.home()->queue).config;
  end.keep_body = queue.keep_bodies_ns > 0;
  const int64_t keep_ns = std::max(queue.keep_results_ns, queue.keep_bodies_ns);
  end.expires_ms = keeping_ms() + keep_ns / kNsPerMs;
  return end;
}

// There is no answer, for this reason. `started_ms`: when its last run began, if the scheduler
// knows no more that it ran. REQUIRES: no worker has it.
void Dispatcher::end_with(Job& job, JobStatus status, const wire::Failed& failed, bool dead,
                          int64_t started_ms) {
  JobEnd end = end_of(job, status);
  end.started_ms = started_ms != 0 ? started_ms : end.started_ms;
  end.http_status = static_cast<uint16_t>(failed.status);
  end.error_code = failed.code;
  end.error = failed.message;
  end.dead = dead;
  if (dead) {
    count(job, Metrics::Event::kDead);
    end.expires_ms = keeping_ms() + limits_.keep_dead_ns / kNsPerMs;
  }
  count_usage(job, end);
  subscribers_.fail(job, failed);
  conclude(job, std::move(end), Outcome::kCancelled);
}

// Nobody is told of the end of what was promised before it is on disk.
void Dispatcher::conclude(Job& job, JobEnd end, Outcome outcome) {
  if (job.lane() != nullptr) {  // else it was remembered before
    job.remember(*job.lane(), Scheduler::owner_of(job));
  }
  suspects_.forget(job);
  scheduler_.finish(job, outcome, connections_.now_ns());
  let_go(job);
  if (job.shared) {
    return conclude_shared(job, std::move(end));
  }
  const bool kept = job.promise == PromiseState::kNone && job.more != nullptr &&
                    job.more->keep != nullptr && end.status == JobStatus::kCompleted;
  // Nobody waits for the disk on account of what is kept for others.
  const bool spare = kept && job.more->keep->is_spare() && !Subscribers::has_late(job);
  if (job.promise == PromiseState::kNone && (!kept || (spare && !keeps_up()))) {
    if (job.more->answer.stored > 0) {
      store_->discard_result(job.id());
    }
    return ended(job, end);
  }
  if (spare) {
    keep(job, end, [](const JobEnd&) {});
    return ended(job, end);
  }
  if (notices && job.promise != PromiseState::kNone) {
    end.notices = notices(view_at_end(job, end), end.dead);
  }
  job.ending = true;
  ending_ += job.promise == PromiseState::kNone ? 0 : 1;
  const auto told = [this](const JobEnd& written) {
    if (Job* const over = find(written.id); over != nullptr) {
      ended(*over, written);
    }
  };
  if (kept) {
    return keep(job, end, told);
  }
  std::string rest;
  uint64_t offset = 0;
  if (job.more != nullptr && end.answered()) {
    offset = job.more->answer.stored;
    rest = job.more->answer.unstored();
  }
  store_->finish(std::move(end), offset, std::move(rest), told);
}

// What was not promised goes to the store, too. REQUIRES: it has completed, and `more->keep`.
void Dispatcher::keep(const Job& job, const JobEnd& end,
                      std::function<void(const JobEnd&)> on_done) {
  JobRecord record = *job.more->keep;
  record.id = job.id();
  record.status = end.status;
  record.end = end;
  store_->keep(std::move(record), Subscribers::has_late(job), job.more->answer.stored,
               std::string(job.more->answer.unstored()), std::move(on_done));
}

JobView Dispatcher::view_at_end(const Job& job, const JobEnd& end) {
  return {.id = job.id(),
          .status = end.status,
          .queue = job.home()->queue->settings.name,
          .model = job.home()->model,
          .label = job.more == nullptr ? std::string_view() : job.more->label,
          .trace_id = trace_id_of(job),
          .attempts = end.attempts,
          .created_ms = job.created_ms,
          .started_ms = end.started_ms,
          .finished_ms = end.finished_ms,
          .expires_ms = end.expires_ms,
          .error_code = end.error_code,
          .error = end.error};
}

JobRecord Dispatcher::record_at_end(const Job& job, const JobEnd& end) {
  JobRecord record;
  record.id = job.id();
  record.owner.lo = job.owner;
  record.queue = job.home()->queue->settings.name;
  record.model = job.home()->model;
  record.label = job.more == nullptr ? std::string() : job.more->label;
  record.trace = job.more == nullptr || job.more->trace == nullptr ? "" : text_of(*job.more->trace);
  record.created_ms = job.created_ms;
  record.status = end.status;
  record.end = end;
  return record;
}

void Dispatcher::ended(Job& job, const JobEnd& end) {
  if (logs_ends_ && !job.away) {
    log_end(job, end);
  }
  if (on_span && !job.away) {
    tell_spans(job, end, on_span);
  }
  JobView view = view_at_end(job, end);
  subscribers_.end_events(job, view);
  const bool on_disk =
      job.promise != PromiseState::kNone || (is_stored(job) && end.status == JobStatus::kCompleted);
  while (job.waiters() != nullptr) {
    Waiter& waiter = *job.waiters();
    view.jobs_path = waiter.jobs_path;
    if (on_disk && waiter.kind == Waiter::Kind::kPromise && waiter.wait_ns == 0 &&
        waiter.wait_ends_ns == INT64_MAX) {  // its promise has come together with the end
      replies_.promised(waiter, job, view);
      continue;
    }
    if (waiter.kind == Waiter::Kind::kQuestion) {  // it asked for the end
      append_reply(waiter.caller->out(), waiter.id, {.status = 200, .content_type = kJson},
                   render(view));
    } else {
      replies_.ended(waiter, job, end);
    }
    subscribers_.leave(waiter);
  }
  if (on_event && !job.shared && !job.away) {
    on_event(record_at_end(job, end));
  }
  if (job.promise != PromiseState::kNone) {
    let_edge_settle(job, end);
    if (job.has_callback && on_callback_due) {
      on_callback_due(job.id(), job.more->share);
    }
    if (!job.shared && !job.away) {
      tell_hooks(job, end);
    }
  }
  owner_events_.changed(job);
  erase(job);
}

// They were stored with the end, unless it is another than was asked for.
void Dispatcher::tell_hooks(const Job& job, const JobEnd& end) {
  if (!notices) {
    return;
  }
  if (end.notices.empty()) {
    JobEnd told = end;
    told.notices = notices(view_at_end(job, end), end.dead);
    if (told.notices.empty()) {
      return;
    }
    store_->notify(told);
  }
  on_notices_due();
}

void Dispatcher::erase(Job& job) {
  suspects_.forget(job);
  let_go(job);
  if (job.promise != PromiseState::kNone && job.owner != 0 && !job.shared && !job.away) {
    live_.erase(job);
  }
  if (job.looking_up && !early_.empty()) {
    refuse_early(job);
  }
  if (job.away && job.home() != nullptr) {
    shared(*job.home()->queue)->unwatch(std::string(job.id().view()));
  }
  if (job.more != nullptr && job.more->key != limit::Hash128{}) {
    if (const auto found = keys_.find(job.more->key.lo);
        found != keys_.end() && found->second == &job) {
      keys_.erase(found);
    }
  }
  unpromised_ -= job.promise == PromiseState::kNone ? 1 : 0;
  ending_ -= job.promise != PromiseState::kNone && job.ending ? 1 : 0;
  jobs_.erase(job);
}

// ---- what cannot be kept ----

bool Dispatcher::keeps_up() const {
  return store_->disk() == Disk::kWell &&
         static_cast<int64_t>(store_->pending_bytes()) < limits_.max_unwritten_bytes / 2;
}

// What is promised begins only while its end can be written. Until then it stands in its place, and
// those behind it that are waited for go on.
bool Dispatcher::postponed(Job& job) {
  if (job.promise == PromiseState::kNone || job.shared || store_ == nullptr || keeps_up()) {
    return false;
  }
  scheduler_.postpone(job, connections_.now_ns() + kPostponeNs);
  return true;
}

// More of its answer than is kept, or than the disk takes now. False: the job is over.
bool Dispatcher::bound_answer(Job& job) {
  const bool large = job.more->answer.bytes > static_cast<uint64_t>(limits_.max_result_bytes);
  // What is kept for others gives way before what is promised does.
  const int64_t most = limits_.max_unwritten_bytes / (is_spare(job) ? 2 : 1);
  const bool behind = static_cast<int64_t>(store_->pending_bytes()) > most;
  if (!large && !behind) {
    return true;
  }
  if (job.promise == PromiseState::kNone && !Subscribers::has_late(job)) {  // its readers go on
    store_->discard_result(job.id());
    job.more->keep.reset();
    return true;
  }
  if (large || job.promise == PromiseState::kNone) {
    fail_running(job, large ? "Its result is larger than is kept: limits.max_result is " +
                                  std::to_string(limits_.max_result_bytes) + " bytes."
                            : "Its result cannot be written to disk fast enough.");
    return false;
  }
  start_anew(job);
  return true;
}

// Its answer comes faster than the disk takes it. No attempt is counted.
void Dispatcher::start_anew(Job& job) {
  revoke(job);
  start_over(job, "It came faster than the disk takes it; the job begins anew.");
  store_->discard_result(job.id());
  suspects_.forget(job);
  scheduler_.postpone(job, connections_.now_ns() + kPostponeNs);
  subscribers_.tell_state(job);
}

// It runs, and what would come of it is not wanted.
void Dispatcher::fail_running(Job& job, const std::string& why) {
  revoke(job);
  count(job, Metrics::Event::kFailed);
  end_with(job, JobStatus::kFailed, {.status = 502, .code = "engine_failed", .message = why});
}

void Dispatcher::lost_result(const JobId& id, const std::string& why) {
  log(Level::kError,
      "job " + std::string(id.view()) + " fails, as its result could not be stored: " + why);
  if (Job* const job = find(id);
      job != nullptr && !job->ending && job->promise != PromiseState::kNone) {
    fail_running(*job, "Its result could not be stored.");
  }
}

std::vector<Job*> Dispatcher::live_jobs(uint64_t owner, const std::optional<JobId>& before,
                                        size_t most) const {
  return live_.list(owner, before ? sequence_of(*before) : UINT64_MAX, most);
}

// ---- from callers ----

void Dispatcher::release(Waiter& waiter, const UsageCounts* spent) {
  Job* const job = waiter.job;
  const bool duplicate = waiter.duplicate;
  subscribers_.leave(waiter);
  if (job != nullptr && job->promise == PromiseState::kNone && !job->ending &&
      !Subscribers::wanted(*job)) {
    UsageCounts rest = spent == nullptr ? UsageCounts() : *spent;
    rest[kRequests] -= duplicate ? 1 : 0;  // which was counted when it joined
    return abandon(*job, spent == nullptr ? nullptr : &rest);
  }
  if (job != nullptr && spent != nullptr && counts_here(*job)) {
    count_leaver(*job, duplicate, *spent);
  }
  if (job != nullptr) {
    forget_unwatched(*job);
  }
}

// What Redis has alone is not to be known here for nobody.
void Dispatcher::forget_unwatched(Job& job) {
  if (job.away && job.waiters() == nullptr) {
    job.more->heard.reset();
  }
  if (job.away && !job.looking_up && job.promise != PromiseState::kNone &&
      job.waiters() == nullptr && job.more->receipt.empty()) {
    erase(job);
  }
}

// Nobody waits for it any more.
void Dispatcher::abandon(Job& job, const UsageCounts* spent) {
  if (job.looking_up) {
    return forget(job);
  }
  if (job.away) {
    if (!job.unwanted) {
      job.unwanted = true;
      cancel_away(job, spent);
    }
    return job.waiters() == nullptr ? forget(job) : void();  // they hear of its end
  }
  revoke(job);
  count(job, Metrics::Event::kCancelled);
  count_left(job, spent);
  conclude(job, end_of(job, JobStatus::kCancelled), Outcome::kCancelled);
}

void Dispatcher::cancel(Job& job) {
  const wire::Failed cancelled{
      .status = 410, .code = "cancelled", .message = "The job was cancelled."};
  if (job.ending) {
    return;
  }
  if (job.looking_up) {
    return turn_away(job, cancelled);
  }
  if (job.away) {
    return cancel_away(job);
  }
  revoke(job);
  count(job, Metrics::Event::kCancelled);
  end_with(job, JobStatus::kCancelled, cancelled);
}

void Dispatcher::expire(Job& job) {
  revoke(job);
  count(job, Metrics::Event::kExpired);
  count(job, Metrics::Event::kFailed);
  const bool to_start = job.more != nullptr && job.more->ends_by_ns != 0;
  end_with(job, JobStatus::kExpired,
           {.status = 504,
            .code = "deadline_exceeded",
            .message = to_start ? "The job had not started by the time that was asked for."
                                : "The job was not done by its deadline."});
}

}  // namespace penstock::queue
