#include "worker/queue/api/jobs_api.h"

#include <algorithm>

#include "shared/http/query.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/text/jobs_path.h"
#include "worker/queue/text/json.h"
#include "worker/queue/text/reply.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {
namespace {

constexpr size_t kMaxPathBytes = 256;

// Nobody's job is everybody's who knows its id.
template <typename Hash>
bool may_see(const Hash& owner, const Hash& who) {
  return owner == Hash{} || owner == who;
}

}  // namespace

JobsApi::JobsApi(Dispatcher& dispatcher, Intake& intake)
    : dispatcher_(dispatcher), intake_(intake) {
  dispatcher_.owner_events().look_elsewhere = [this](const std::string& who,
                                                     const std::string& jobs_path, auto then) {
    look_for_stream(who, jobs_path, std::move(then));
  };
}

void JobsApi::ask(Caller& caller, uint64_t id, const wire::Ask& ask) {
  const bool get = ask.method == "GET" || ask.method == "HEAD";
  if (ask.path.empty() || ask.path == "/") {
    if (get) {
      return list(caller, id, ask, false);
    }
    return wire::append(caller.out(), id,
                        wire::Failed{.status = 405,
                                     .code = "method_not_allowed",
                                     .message = "Jobs are listed by GET.",
                                     .headers = "Allow: GET, HEAD\n"});
  }
  if (ask.path == "/events" && ask.method == "GET" && !caller.is_tool()) {
    return stream_all(caller, id, ask);
  }
  about_one(caller, id, ask);
}

void JobsApi::fail(Waiter& waiter, const wire::Failed& failed) {
  wire::append(waiter.caller->out(), waiter.id, failed);
  dispatcher_.subscribers().leave(waiter);
}

// Whoever has left is still to be answered by the store, which may have a disk that fails.
bool JobsApi::refuse_while_behind(Waiter& waiter) {
  if (dispatcher_.store()->pending() < Store::kMostPending) {
    return false;
  }
  fail(waiter, {.status = 503,
                .code = "busy",
                .message = "Jobs cannot be read from disk at the moment. Try again in 10 s.",
                .retry_after_s = 10});
  return true;
}

// ---- lists ----

JobView JobsApi::view(const JobRecord& record, std::string_view jobs_path, bool all) const {
  const Job* const job = has_ended(record.status) ? nullptr : dispatcher_.find(record.id);
  if (job != nullptr) {
    const bool from_disk = !record.queue.empty();
    return view(*job, jobs_path, all, from_disk ? &record : nullptr);
  }
  JobView view = all ? operator_view_of(record) : view_of(record);
  view.jobs_path = jobs_path;
  return view;
}

JobView JobsApi::listed_view(const Listing& listing, const JobRecord& record) const {
  JobView seen = view(record, listing.jobs_path, listing.all);
  const auto place = listing.places.find(std::string(record.id.view()));
  if (place != listing.places.end() && seen.status == JobStatus::kQueued) {
    seen.position = place->second;
  }
  return seen;
}

// Of a job that was not promised, there is no record.
JobView JobsApi::view(const Job& job, std::string_view jobs_path, bool all,
                      const JobRecord* record) const {
  JobView view = dispatcher_.subscribers().view(job, jobs_path);
  if (all && record != nullptr) {
    view.origin = operator_view_of(*record).origin;
  } else if (all && job.home() != nullptr) {
    view.origin = {.priority = Scheduler::priority_of(job)};
  }
  return view;
}

// ---- one ----

void JobsApi::about_one(Caller& caller, uint64_t id, const wire::Ask& ask) {
  Waiter& waiter = dispatcher_.subscribers().add(caller, id, Waiter::Kind::kQuestion);
  waiter.jobs_path = jobs_path_or_default(ask.jobs_path);
  const bool behind = ask.path.front() == '/';  // else it is of another name that begins alike
  const std::string_view path = behind ? ask.path.substr(1, kMaxPathBytes) : std::string_view();
  const size_t slash = std::min(path.find('/'), path.size());
  const auto job_id = parse_job_id(path.substr(0, slash));
  const std::string_view part = path.substr(slash);
  Question question;
  question.head = ask.method == "HEAD";
  const bool get = ask.method == "GET" || question.head;
  if (part == "/events" && get) {
    question.about = About::kEvents;
  } else if (part == "/result" && get) {
    question.about = About::kResult;
  } else if (part == "/preview" && get) {
    question.about = About::kPreview;
  } else if (part.empty() && ask.method == "DELETE") {
    const auto query = http::Query::parse(ask.query);
    question.about = query && query->get("purge") ? About::kPurge : About::kCancel;
  } else if (!part.empty() && part != "/events" && part != "/result" && part != "/preview") {
    return fail(waiter, not_found());
  } else if (!get) {
    return fail(waiter,
                {.status = 405,
                 .code = "method_not_allowed",
                 .message = "Jobs are seen by GET and cancelled by DELETE.",
                 .headers = part.empty() ? "Allow: GET, HEAD, DELETE\n" : "Allow: GET, HEAD\n"});
  }
  if (question.about == About::kEvents) {
    const auto last = parse_event_id(ask.last_event_id);
    if (!last) {
      return fail(waiter, invalid("Last-Event-ID is no id of an event of this stream: "
                                  "two numbers with '-' between, or \"end\".",
                                  "Last-Event-ID"));
    }
    question.last = *last;
    question.websocket = ask.websocket != 0;
  }
  question.who = ask.owner;
  question.owner = intake_.hash_of(ask.owner);
  question.all = caller.is_tool();
  if (!job_id) {
    return fail(waiter, not_found());
  }
  question.id = *job_id;
  Job* const job = dispatcher_.find(*job_id);
  const bool alive = job != nullptr && !job->ending && !job->away;
  const SharedQueue* const shared =
      alive && job->shared ? dispatcher_.shared(*job->home()->queue) : nullptr;
  if (alive && (question.all ? job->promise == Job::PromiseState::kNone
                             : may_see(job->owner, intake_.hash_of(ask.owner, shared).lo))) {
    return answer(waiter, *job, question, nullptr);
  }
  if (dispatcher_.store() == nullptr) {
    return find_shared(waiter, question);
  }
  if (refuse_while_behind(waiter)) {
    return;
  }
  Subscribers::ask(waiter);
  dispatcher_.store()->find(*job_id, [this, &waiter, question](std::optional<JobRecord> record) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    if (!record || !(question.all || may_see(record->owner, question.owner))) {
      return find_shared(waiter, question);
    }
    answer_ended(waiter, question, *record);
  });
}

// REQUIRES: the job is alive, or its end not written yet; and it may be seen.
void JobsApi::answer(Waiter& waiter, Job& job, const Question& question, const JobRecord* record) {
  switch (question.about) {
    case About::kEvents:
      waiter.kind = Waiter::Kind::kEvents;
      waiter.websocket = question.websocket;
      dispatcher_.subscribers().join(waiter, job);
      return dispatcher_.subscribers().begin_events(waiter, job, question.last);
    case About::kCancel:
      dispatcher_.subscribers().join(waiter, job);
      return dispatcher_.cancel(job);
    case About::kPurge:
      return fail(waiter, not_over());
    case About::kResult:
      return say_job(waiter, view(job, waiter.jobs_path, question.all, record), 202, true);
    case About::kPreview:
      return job.more == nullptr || job.more->preview == nullptr
                 ? fail(waiter, no_preview())
                 : say_preview(waiter, {job.more->preview->content_type, job.more->preview->body});
    case About::kJob:
      return say_job(waiter, view(job, waiter.jobs_path, question.all, record), 200, true);
  }
}

// The last picture of a job that runs.
void JobsApi::say_preview(Waiter& waiter, const wire::Preview& last) {
  append_reply(waiter.caller->out(), waiter.id,
               {.status = 200,
                .content_type = last.content_type,
                .headers = "Cache-Control: private, max-age=60\n"},
               last.body);
  dispatcher_.subscribers().leave(waiter);
}

void JobsApi::say_job(Waiter& waiter, const JobView& view, uint64_t status, bool poll) {
  std::string headers = "Cache-Control: no-store\n";
  if (poll) {
    headers += "Retry-After: " + std::to_string(dispatcher_.subscribers().poll_after_s(view)) + "\n";
  }
  append_reply(waiter.caller->out(), waiter.id,
               {.status = status, .content_type = kJson, .headers = headers}, render(view));
  dispatcher_.subscribers().leave(waiter);
}

// The job as the store has it. It may be ending this very moment: it is over once that is written.
void JobsApi::answer_ended(Waiter& waiter, const Question& question, const JobRecord& record) {
  Job* const job = dispatcher_.find(record.id);
  if (job != nullptr && !(job->ending && has_ended(record.status))) {
    return answer(waiter, *job, question, &record);
  }
  if (!has_ended(record.status)) {
    return fail(waiter, not_found());  // a promise that was refused, and is still to be taken back
  }
  if (question.about == About::kPurge) {
    return purge(waiter, record);
  }
  say_end(waiter, question, record, nullptr);
}

void JobsApi::say_end(Waiter& waiter, const Question& question, const JobRecord& record,
                      const std::string_view* result) {
  JobView seen = question.all ? operator_view_of(record) : view_of(record);
  seen.jobs_path = waiter.jobs_path;
  if (question.about == About::kJob || question.about == About::kCancel) {
    return say_job(waiter, seen, 200, false);
  }
  if (question.about == About::kPreview) {
    return fail(waiter, {.status = 404,
                         .code = "not_found",
                         .message = "The job is over; its result is at /result."});
  }
  if (question.about == About::kEvents && question.last.ended && !question.websocket) {
    append_reply(waiter.caller->out(), waiter.id, {.status = 204}, "");
    return dispatcher_.subscribers().leave(waiter);
  }
  if (question.about == About::kEvents) {
    waiter.kind = Waiter::Kind::kEvents;
    waiter.websocket = question.websocket;
    dispatcher_.subscribers().only_event(waiter, seen);
    return;
  }
  if (!record.end.answered()) {
    return fail(waiter, {.status = std::max<uint64_t>(record.end.http_status, 400),
                         .code = record.end.error_code,
                         .message = record.end.error});
  }
  result == nullptr ? dispatcher_.replies().stored_result(waiter, record, {})
                    : dispatcher_.replies().given_result(waiter, record, *result, {});
}

}  // namespace penstock::queue
