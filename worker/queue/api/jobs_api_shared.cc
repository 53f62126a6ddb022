// JobsApi: jobs of queues that hosts share. Any host answers for them: what is not in memory here
// is asked of Redis.
#include <algorithm>

#include "worker/queue/api/jobs_api.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/log.h"
#include "worker/queue/text/reply.h"

namespace penstock::queue {
namespace {

constexpr uint64_t kAwayRetrySeconds = 2;

}  // namespace

void JobsApi::fail_away(Waiter& waiter) {
  fail(waiter, {.status = 503,
                .code = "busy",
                .message = "Jobs cannot be seen at the moment, as the hosts' Redis does not "
                           "answer. Try again in 2 s.",
                .retry_after_s = kAwayRetrySeconds});
}

void JobsApi::find_shared(Waiter& waiter, const Question& question) {
  if (dispatcher_.shared() == nullptr) {
    return fail(waiter, not_found());
  }
  Subscribers::ask(waiter);
  const bool resumes = question.about == About::kEvents && question.last.run != 0;
  const size_t most = question.about == About::kResult || resumes ? 0 : kMostRecordBytes;
  dispatcher_.shared()->look(
      std::string(question.id.view()), most,
      [this, &waiter, question](SharedQueue* queue,
                                const SharedOrder::Answer<SharedOrder::Known>& known) {
        if (!dispatcher_.subscribers().answered(waiter)) {
          return;
        }
        if (!known) {
          return fail_away(waiter);
        }
        JobRecord record;
        std::string_view result;
        const bool is_there = queue != nullptr && decode(known.value, record, result);
        if (!is_there || !(question.all || record.owner == limit::Hash128{} ||
                           record.owner == intake_.hash_of(question.who, queue))) {
          return fail(waiter, not_found());
        }
        answer_shared(waiter, question, *queue, known.value, record, result);
      });
}

void JobsApi::answer_shared(Waiter& waiter, const Question& question, SharedQueue& queue,
                            const SharedOrder::Known& known, const JobRecord& record,
                            std::string_view result) {
  if (question.about == About::kResult && !record.stored_name.empty()) {
    return say_stored(waiter, question, record);
  }
  if (has_ended(record.status) && question.about == About::kEvents && question.last.run != 0 &&
      question.last.run == shared_run(known.fence, record.restarts)) {
    return record.stored_name.empty() ? say_rest(waiter, question, record, result)
                                      : say_stored_rest(waiter, question, record);
  }
  if (has_ended(record.status) && question.about == About::kPurge) {
    return purge_shared(waiter, queue, record);
  }
  if (has_ended(record.status)) {
    return say_end(waiter, question, record, &result);
  }
  switch (question.about) {
    case About::kEvents: {  // the first of which says its place
      const std::string_view ids[] = {question.id.view()};
      const auto told = [this, &waiter, question, record, known,
                         &queue](const SharedOrder::Answer<std::vector<int64_t>>& at) {
        if (!dispatcher_.subscribers().answered(waiter)) {
          return;
        }
        Job& job = dispatcher_.watch(queue, record, known);
        if (job.away && at && at.value.size() == 1 && at.value.front() >= 0) {
          job.more->position = static_cast<uint32_t>(at.value.front());
        }
        waiter.kind = Waiter::Kind::kEvents;
        waiter.websocket = question.websocket;
        dispatcher_.subscribers().join(waiter, job);
        dispatcher_.subscribers().begin_events(waiter, job, question.last);
        dispatcher_.listen(job, known);
      };
      Subscribers::ask(waiter);
      return queue.positions(ids, told) ? void() : told({});
    }
    case About::kCancel:
      return cancel_shared(waiter, question, queue, record);
    case About::kPurge:
      return fail(waiter, not_over());
    case About::kPreview:
      return ask_runner(waiter, question, queue, known, record);
    case About::kResult:
    case About::kJob:
      return known.state == SharedOrder::Known::State::kRunning
                 ? ask_runner(waiter, question, queue, known, record)
                 : say_position(waiter, question, queue, record);
  }
}

// A result that lies where all hosts have it: brought here, or its callers are sent there.
void JobsApi::say_stored(Waiter& waiter, const Question& question, const JobRecord& record) {
  constexpr wire::Failed kNotHad{.status = 503,
                                 .code = "busy",
                                 .message = "The result cannot be had at the moment.",
                                 .retry_after_s = kAwayRetrySeconds};
  LargeResults* const results = dispatcher_.shared()->results();
  if (results == nullptr) {
    return fail(waiter, kNotHad);
  }
  if (const std::string address = results->address_of(record); !address.empty()) {
    const std::string headers = "Location: " + address + "\nCache-Control: no-store\n";
    append_reply(waiter.caller->out(), waiter.id, {.status = 302, .headers = headers}, {});
    return dispatcher_.subscribers().leave(waiter);
  }
  Subscribers::ask(waiter);
  results->bring(record, [this, &waiter, question, kNotHad](Result<JobRecord> brought) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    if (!brought) {
      const bool gone = brought.error().kind == ErrorKind::kGone;
      log(Level::kError, "a result cannot be had: " + brought.error().message);
      return fail(waiter, gone ? wire::Failed{.status = 404,
                                              .code = "not_found",
                                              .message = "The result is not there any more."}
                               : kNotHad);
    }
    const std::string_view none;
    say_end(waiter, question, *brought, &none);
  });
}

// As much of it as is told at once.
void JobsApi::say_stored_rest(Waiter& waiter, const Question& question, const JobRecord& record) {
  LargeResults* const results = dispatcher_.shared()->results();
  if (results == nullptr) {
    return say_rest(waiter, question, record, {});
  }
  const uint64_t bytes = record.result_bytes;
  const uint64_t first =
      std::max(question.last.offset, bytes - std::min(bytes, Subscribers::kMostRest));
  Subscribers::ask(waiter);
  results->read(record, first, [this, &waiter, question, record](const Result<std::string>& rest) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    if (!rest) {
      log(Level::kError, "a result cannot be had: " + rest.error().message);
    }
    say_rest(waiter, question, record, rest ? std::string_view(*rest) : std::string_view());
  });
}

// Events go on where they were broken off, though the job has ended meanwhile. `result`: of it what
// comes last, at least.
void JobsApi::say_rest(Waiter& waiter, const Question& question, const JobRecord& record,
                       std::string_view result) {
  JobView seen = question.all ? operator_view_of(record) : view_of(record);
  seen.jobs_path = waiter.jobs_path;
  Answer answer;
  answer.content_type = record.end.content_type;
  answer.append(result);
  answer.bytes = std::max(answer.bytes, record.result_bytes);
  waiter.kind = Waiter::Kind::kEvents;
  waiter.websocket = question.websocket;
  dispatcher_.subscribers().only_event(waiter, seen, &answer, question.last);
}

// How far it has come, and what it looks like, is in its runner's memory. Where that does not
// answer in time, it is as if it had not said anything yet.
void JobsApi::ask_runner(Waiter& waiter, const Question& question, SharedQueue& queue,
                         const SharedOrder::Known& known, const JobRecord& record) {
  const bool looks = question.about == About::kPreview;
  const auto told = [this, &waiter, question, record, looks](std::string_view answer) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    const wire::Decoded decoded = wire::decode(answer, {});
    const std::string_view payload =
        decoded.kind == wire::Decoded::kFrame ? decoded.frame.payload : std::string_view();
    if (looks) {
      wire::Preview preview;
      const bool is = !payload.empty() && wire::parse(payload, preview) == nullptr;
      return is ? say_preview(waiter, preview) : fail(waiter, no_preview());
    }
    JobView view = question.all ? operator_view_of(record) : view_of(record);
    view.jobs_path = waiter.jobs_path;
    if (wire::Progress said; !payload.empty() && wire::parse(payload, said) == nullptr) {
      view.progress = static_cast<double>(said.millionths) / 1e6;
      view.step = static_cast<uint32_t>(said.step);
      view.steps = static_cast<uint32_t>(said.steps);
    }
    say_job(waiter, view, question.about == About::kResult ? 202 : 200, true);
  };
  Subscribers::ask(waiter);
  queue.questions().ask(queue.host(), known.host,
                        std::string(question.id.view()) + (looks ? " preview" : " news"), told);
}

void JobsApi::say_position(Waiter& waiter, const Question& question, SharedQueue& queue,
                           const JobRecord& record) {
  const auto told = [this, &waiter, question, record,
                     &queue](const SharedOrder::Answer<std::vector<int64_t>>& at) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    JobView view = question.all ? operator_view_of(record) : view_of(record);
    view.jobs_path = waiter.jobs_path;
    if (at && at.value.size() == 1 && at.value.front() > 0) {
      view.position = static_cast<uint32_t>(at.value.front());
      Scheduler& scheduler = dispatcher_.scheduler();
      if (Scheduler::Queue* const its = scheduler.find_queue(queue.name())) {
        Subscribers::say_wait(view, scheduler.lane(*its, view.model),
                              dispatcher_.connections().now_ns());
      }
    }
    say_job(waiter, view, question.about == About::kResult ? 202 : 200, true);
  };
  const std::string_view ids[] = {question.id.view()};
  Subscribers::ask(waiter);
  if (!queue.positions(ids, told)) {
    told({});
  }
}

void JobsApi::cancel_shared(Waiter& waiter, const Question& question, SharedQueue& queue,
                            JobRecord record) {
  JobEnd& end = record.end;
  record.status = end.status = JobStatus::kCancelled;
  end.http_status = 410;
  end.error_code = "cancelled";
  end.error = "The job was cancelled.";
  end.finished_ms = dispatcher_.wall_ms();
  const std::string text = encode(record, {});
  const auto told = [this, &waiter, question, record,
                     &queue](const SharedOrder::Answer<SharedOrder::End>& is) {
    if (is && is.value == SharedOrder::End::kEnded) {
      dispatcher_.count_cancelled(record);
    }
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    if (!is) {
      return fail_away(waiter);
    }
    if (is.value != SharedOrder::End::kEnded) {  // another end came before
      return find_shared(waiter, question);
    }
    if (Scheduler::Queue* const its = dispatcher_.scheduler().find_queue(queue.name())) {
      dispatcher_.count(*its, Metrics::Event::kCancelled);
    }
    const std::string_view none;
    say_end(waiter, question, record, &none);
  };
  Subscribers::ask(waiter);
  if (!queue.cancel(question.id.view(), text, told)) {
    dispatcher_.subscribers().answered(waiter);
    fail_away(waiter);
  }
}

}  // namespace penstock::queue
