// Dispatcher: what workers answer, and what becomes of an attempt that failed.
#include <algorithm>

#include "worker/queue/jobs/dispatcher.h"

namespace penstock::queue {

using PromiseState = Job::PromiseState;
using Outcome = Scheduler::Outcome;

namespace {

constexpr std::string_view kCutShort = "The answer was cut short. ";
constexpr uint64_t kFirstErrorStatus = 400;
constexpr std::string_view kAnyType = "application/octet-stream";

}  // namespace

void Dispatcher::on_head(Job& job, const wire::Head& head) {
  job.answer_began = true;
  job.answer_fails = head.status >= kFirstErrorStatus;
  if (job.keeps_answer) {
    Answer& answer = job.extra().answer;
    answer = {};
    answer.status = static_cast<uint16_t>(head.status);
    answer.content_type = head.content_type.empty() ? kAnyType : head.content_type;
    answer.headers = head.headers;
  }
  if (job.promise == PromiseState::kNone) {
    let_go(job);
  }
  subscribers_.forward_head(job, head);
  say_head(job, head);
}

void Dispatcher::on_chunk(Job& job, std::string_view bytes, std::string_view frame) {
  job.more->taken_bytes += bytes.size();
  subscribers_.forward(job, frame, bytes);
  say(job, Part::Kind::kChunk, bytes);
  if (job.keeps_answer) {
    Answer& answer = job.more->answer;
    answer.append(bytes);
    if (answer.bytes > Store::kInlineBytes) {
      spill(job);
    }
    subscribers_.tell_answer(job);
    answer.trim(is_stored(job) || job.shared);
    if (is_stored(job) && !bound_answer(job)) {
      return;
    }
    if (is_too_large(job)) {
      return fail_running(job, "Its result is larger than is kept of a shared queue's jobs.");
    }
  }
  if (!abandon_if_unwanted(job)) {
    widen(job);
  }
}

// What is stored is read by the store. Else, and where it is stored for others alone, the answer
// goes on as fast as its fastest reader.
void Dispatcher::widen(Job& job) {
  if (job.away) {
    return pace_heard(job);
  }
  if (job.worker() == nullptr || job.more->taken_bytes < wire::kFirstWindowBytes / 2 ||
      ((!is_stored(job) || is_spare(job)) && subscribers_.lags(job))) {
    return;
  }
  job.worker()->widen(job, std::exchange(job.more->taken_bytes, 0));
}

// Those who read too slowly have left, perhaps all: then the job is gone, and this is true.
bool Dispatcher::abandon_if_unwanted(Job& job) {
  const bool unwanted = job.promise == PromiseState::kNone && !Subscribers::wanted(job);
  if (unwanted) {
    abandon(job);
  }
  return unwanted;
}

bool Dispatcher::is_stored(const Job& job) {
  return !job.shared && !job.away &&
         (job.promise != PromiseState::kNone || (job.more != nullptr && job.more->keep != nullptr));
}

bool Dispatcher::is_spare(const Job& job) {
  return job.more != nullptr && job.more->keep != nullptr && job.more->keep->is_spare();
}

// What is too large for the database goes to its file as it comes.
void Dispatcher::spill(Job& job) {
  Answer& answer = job.more->answer;
  if (is_stored(job) && answer.bytes - answer.stored >= Store::kInlineBytes) {
    store_->append_result(job.id(), answer.stored, std::string(answer.unstored()));
    answer.stored = answer.bytes;
  }
}

void Dispatcher::on_progress(Job& job, const wire::Progress& progress, std::string_view frame) {
  constexpr uint64_t kMillion = 1'000'000;
  Job::More& more = job.extra();
  more.has_progress = true;
  more.progress = static_cast<double>(std::min(progress.millionths, kMillion)) / kMillion;
  more.step = static_cast<uint32_t>(std::min<uint64_t>(progress.step, UINT32_MAX));
  more.steps = static_cast<uint32_t>(std::min<uint64_t>(progress.steps, UINT32_MAX));
  subscribers_.forward(job, frame);
  say(job, Part::Kind::kNews, frame);
  subscribers_.tell_progress(job);
  abandon_if_unwanted(job);
}

void Dispatcher::on_preview(Job& job, const wire::Preview& preview) {
  std::unique_ptr<Preview>& last = job.extra().preview;
  const uint32_t number = last == nullptr ? 1 : last->number + 1;
  last = std::make_unique<Preview>(
      Preview{std::string(preview.content_type), std::string(preview.body), number});
  if (job.tells) {  // who wants to see it asks
    std::string frame;
    wire::append(frame, 0, wire::Preview{.content_type = preview.content_type, .body = {}});
    say(job, Part::Kind::kNews, frame);
  }
  subscribers_.tell_preview(job);
}

void Dispatcher::on_done(Job& job, const wire::Done& done, std::string_view frame) {
  // A prompt is read many tokens at a step, an answer drawn one by one.
  constexpr double kPromptTokens = 256;
  note_end(job, AdaptiveSlots::End::kCompleted,
           static_cast<double>(done.completion_tokens) +
               static_cast<double>(done.prompt_tokens) / kPromptTokens);
  job.worker()->forget(job);
  // How long a refusal took says nothing of how long jobs take.
  const Outcome outcome = job.answer_fails ? Outcome::kCancelled : Outcome::kCompleted;
  count(job, job.answer_fails ? Metrics::Event::kFailed : Metrics::Event::kCompleted);
  const auto said = [&done](JobEnd& end) {
    end.prompt_tokens = done.prompt_tokens;
    end.completion_tokens = done.completion_tokens;
    end.device_ns = done.device_ns;
    end.estimated = done.estimated != 0;
    end.done = true;
  };
  const JobStatus status = job.answer_fails ? JobStatus::kFailed : JobStatus::kCompleted;
  if (counts_here(job)) {
    JobEnd used;
    used.status = status;
    said(used);
    count_usage(job, used);
  }
  subscribers_.complete(job, frame);
  say_end(job, frame);
  // As of most that were waited for.
  if (!job.keeps_answer && job.waiters() == nullptr && !on_event && !logs_ends_ &&
      trace_id_of(job).empty()) {
    scheduler_.finish(job, outcome, connections_.now_ns());
    return erase(job);
  }
  JobEnd end = end_of(job, status);
  said(end);
  if (job.keeps_answer) {
    end.http_status = job.more->answer.status;
    end.content_type = job.more->answer.content_type;
    end.headers = job.more->answer.headers;
  }
  if (job.answer_fails) {
    end.error_code = code_of_answer(end.http_status);
    end.error = "The engine answered " + std::to_string(end.http_status) + ".";
  }
  conclude(job, std::move(end), outcome);
}

void Dispatcher::on_failed(Job& job, const wire::Failed& failed) {
  note_end(job, failed.retryable != 0 || failed.returned != 0 ? AdaptiveSlots::End::kFailed
                                                              : AdaptiveSlots::End::kCancelled);
  job.worker()->forget(job);
  const Scheduler::Lane& lane = *job.home();
  if (failed.returned != 0) {
    take_back(job, failed.message);
  } else if (failed.retryable == 0) {
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
    if (job.promise == PromiseState::kNone || (job.shared && !job.more->keep->promised)) {
      count(job, Metrics::Event::kFailed);
      end_with(job, JobStatus::kFailed, cut);
      return false;
    }
    subscribers_.fail(job, cut);  // whoever joined has seen some of it; the promise stands
    job.answer_began = job.answer_fails = false;
    job.more->answer = {};
  }
  job.extra().has_progress = false;
  job.more->preview.reset();
  say_restart(job);
  return true;
}

// Its worker was ended under it, or has no room: that is no attempt. REQUIRES: no worker has it.
void Dispatcher::take_back(Job& job, std::string_view why) {
  if (!start_over(job, why)) {
    return;
  }
  suspects_.forget(job);
  count(job, Metrics::Event::kRetried);
  if (job.shared) {
    return give_back(job, std::nullopt);
  }
  scheduler_.requeue(job, connections_.now_ns());
  subscribers_.tell_state(job);
}

// The attempt failed. Whoever calls this sees to it that a worker with credit takes the job. False:
// that was its end. REQUIRES: no worker has it.
bool Dispatcher::put_back(Job& job, Scheduler::Cause cause, std::string_view why) {
  if (!start_over(job, why)) {
    return false;
  }
  suspects_.forget(job);
  job.remember(*job.lane(), Scheduler::owner_of(job));
  if (job.shared && cause != Scheduler::Cause::kWorkerLostAlone &&
      job.attempts() + 1 < job.home()->queue->settings.attempts) {
    count(job, Metrics::Event::kRetried);
    give_back(job, cause);
    return true;
  }
  const int64_t began_ms = started_ms(job);
  if (scheduler_.retry(job, cause, connections_.now_ns())) {
    count(job, Metrics::Event::kRetried);
    if (job.promise != PromiseState::kNone && !job.shared) {
      store_->attempt(job.id(), job.attempts(), "engine_failed", std::string(why));
    }
    subscribers_.tell_state(job);
    return true;
  }
  const uint32_t attempts = job.attempts();
  const std::string message =
      (attempts == 1 ? std::string("The worker failed the only attempt. ")
                     : "The worker failed all " + std::to_string(attempts) + " attempts. ") +
      std::string(why);
  count(job, Metrics::Event::kFailed);
  end_with(job, JobStatus::kFailed, {.status = 502, .code = "engine_failed", .message = message},
           job.promise != PromiseState::kNone, began_ms);
  return false;
}

}  // namespace penstock::queue
