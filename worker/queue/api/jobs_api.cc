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

constexpr uint32_t kDefaultPage = 20;
constexpr uint32_t kLargestPage = 100;
constexpr uint32_t kStreamedJobs = 50;  // the newest, that a stream begins with
constexpr uint64_t kStreamRetrySeconds = 10;
constexpr int kMostRounds = 5;            // pages of the store that one list may take
constexpr size_t kMostLiveLooked = 1000;  // living jobs, for one
constexpr size_t kMaxPathBytes = 256;

wire::Failed not_found() {
  return {.status = 404, .code = "not_found", .message = "There is no such job of yours."};
}

wire::Failed invalid(std::string_view message, std::string_view param) {
  return {.status = 400, .code = "invalid_request", .message = message, .param = param};
}

// Nobody's job is everybody's who knows its id.
template <typename Hash>
bool may_see(const Hash& owner, const Hash& who) {
  return owner == Hash{} || owner == who;
}

constexpr uint32_t bit(JobStatus status) { return 1U << static_cast<uint32_t>(status); }
constexpr uint32_t kLive =
    bit(JobStatus::kScheduled) | bit(JobStatus::kQueued) | bit(JobStatus::kProcessing);

// "queued,processing" as bits; nothing when one is no status.
std::optional<uint32_t> parse_statuses(std::string_view text) {
  uint32_t bits = 0;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const auto status = status_named(text.substr(0, comma));
    if (!status) {
      return std::nullopt;
    }
    bits |= bit(*status);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return bits;
}

std::optional<uint32_t> parse_limit(std::string_view text) {
  const bool digits = !text.empty() && text.size() <= 3 &&
                      text.find_first_not_of("0123456789") == std::string_view::npos;
  const uint32_t number = digits ? static_cast<uint32_t>(std::stoul(std::string(text))) : 0;
  return number >= 1 && number <= kLargestPage ? std::optional(number) : std::nullopt;
}

}  // namespace

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

void JobsApi::list(Caller& caller, uint64_t id, const wire::Ask& ask, bool dead) {
  const auto refuse = [&](std::string_view message, std::string_view param) {
    wire::append(caller.out(), id, invalid(message, param));
  };
  auto query = http::Query::parse(ask.query);
  if (!query) {
    return refuse(query.error().message, {});
  }
  Listing listing;
  listing.jobs_path = jobs_path_or_default(ask.jobs_path);
  const auto statuses = parse_statuses(query->get("status").value_or(""));
  if (!statuses) {
    return refuse(
        "status is a list of scheduled, queued, processing, completed, failed, cancelled "
        "and expired, with commas between.",
        "status");
  }
  listing.statuses = *statuses == 0 ? ~0U : *statuses;
  listing.query.statuses = listing.statuses | ((listing.statuses & kLive) != 0 ? kLive : 0);
  const auto limit = query->get("limit");
  const auto most = limit ? parse_limit(*limit) : kDefaultPage;
  if (!most) {
    return refuse("limit is a number from 1 to 100.", "limit");
  }
  listing.limit = *most;
  listing.query.limit = kLargestPage;
  if (const auto after = query->get("after")) {
    listing.query.before = parse_job_id(*after);
    if (!listing.query.before) {
      return refuse("after is the id of the last job of the page before.", "after");
    }
  }
  listing.all = caller.is_tool();
  const auto owner = listing.all ? query->get("owner") : ask.owner;
  if (owner) {
    listing.query.owner = intake_.hash_of(*owner);
  }
  if (const auto hash = listing.all ? query->get("owner_hash") : std::nullopt) {
    listing.query.owner = parse_owner(*hash);
    if (!listing.query.owner || owner) {
      return refuse(
          "owner_hash is the 32 hexadecimal digits that a job's owner is shown by, and "
          "stands alone: without owner.",
          "owner_hash");
    }
  }
  listing.query.queue = listing.all ? std::string(query->get("queue").value_or("")) : "";
  listing.query.dead = dead;
  begin_list(caller, id, std::move(listing));
}

// All of an owner's, as they are now and as they change.
void JobsApi::stream_all(Caller& caller, uint64_t id, const wire::Ask& ask) {
  Listing listing;
  listing.jobs_path = jobs_path_or_default(ask.jobs_path);
  listing.limit = kStreamedJobs;
  listing.query.limit = kLargestPage;
  listing.query.owner = intake_.hash_of(ask.owner);
  listing.stream = true;
  listing.websocket = ask.websocket != 0;
  if (dispatcher_.owner_events().is_full(listing.query.owner->lo)) {
    return wire::append(
        caller.out(), id,
        wire::Failed{.status = 429,
                     .code = "concurrency_exceeded",
                     .message = "You have as many streams of your jobs as one caller may.",
                     .retry_after_s = kStreamRetrySeconds});
  }
  begin_list(caller, id, std::move(listing));
}

void JobsApi::begin_list(Caller& caller, uint64_t id, Listing listing) {
  Waiter& waiter = dispatcher_.subscribers().add(caller, id, Waiter::Kind::kQuestion);
  waiter.jobs_path = listing.jobs_path;
  const bool nobodys = listing.query.owner && *listing.query.owner == limit::Hash128{};
  if (dispatcher_.store() == nullptr || nobodys) {
    listing.rounds = kMostRounds;
    return listed(waiter, std::move(listing), JobPage{});
  }
  if (!refuse_while_behind(waiter)) {
    list_more(waiter, std::move(listing));
  }
}

void JobsApi::list_more(Waiter& waiter, Listing listing) {
  Subscribers::ask(waiter);
  const JobQuery query = listing.query;
  dispatcher_.store()->list(query,
                            [this, &waiter, listing = std::move(listing)](JobPage page) mutable {
                              if (dispatcher_.subscribers().answered(waiter)) {
                                add_live(listing, page);
                                listed(waiter, std::move(listing), std::move(page));
                              }
                            });
}

// An owner's that have not ended. One whose end was written just now is shown as the store has it.
void JobsApi::add_live(const Listing& listing, JobPage& page) const {
  if (!listing.query.owner || listing.query.dead || (listing.statuses & kLive) == 0) {
    return;
  }
  const auto jobs =
      dispatcher_.live_jobs(listing.query.owner->lo, listing.query.before, kMostLiveLooked);
  uint32_t taken = 0;
  for (const Job* const job : jobs) {
    const JobStatus status = Subscribers::status_of(*job);
    const JobId id = job->id();
    const bool ended = std::any_of(page.jobs.begin(), page.jobs.end(),
                                   [&](const JobRecord& each) { return each.id == id; });
    const bool queue =
        listing.query.queue.empty() || job->home()->queue->settings.name == listing.query.queue;
    if (job->promise == Job::PromiseState::kMade && !ended && queue &&
        (listing.statuses & bit(status)) != 0) {
      JobRecord& record = page.jobs.emplace_back();
      record.id = id;
      if (++taken == listing.query.limit) {
        page.cut(id);
        break;
      }
    }
  }
  if (taken < listing.query.limit && jobs.size() == kMostLiveLooked) {
    page.cut(jobs.back()->id());
  }
  page.put_in_order(listing.query.limit);
}

// A page of the store's. What is alive is shown as it is now, and may not be what is asked for:
// then more pages are asked for.
void JobsApi::listed(Waiter& waiter, Listing listing, JobPage page) {
  bool more = page.more;
  const std::optional<JobId> looked = page.last;
  for (const JobRecord& record : page.jobs) {
    if (listing.jobs.size() == listing.limit) {
      more = true;
      break;
    }
    listing.query.before = record.id;
    const JobView each = view(record, listing.jobs_path, listing.all);
    if ((listing.statuses & bit(each.status)) != 0) {
      listing.jobs.push_back(render(each));
      listing.last = record.id;
    }
  }
  if (more && listing.jobs.size() < listing.limit) {
    listing.query.before = looked ? looked : listing.query.before;
    if (++listing.rounds < kMostRounds) {
      return list_more(waiter, std::move(listing));
    }
  }
  JsonList jobs;
  for (const std::string& job : listing.jobs) {
    jobs.add(job);
  }
  if (listing.stream) {
    waiter.websocket = listing.websocket;
    return dispatcher_.owner_events().begin(waiter, listing.query.owner->lo, jobs.done(), more,
                                            dispatcher_.wall_ms());
  }
  const std::optional<JobId> last = more ? listing.query.before : listing.last;
  append_reply(waiter.caller->out(), waiter.id,
               {.status = 200, .content_type = kJson, .headers = "Cache-Control: no-store\n"},
               JsonObject()
                   .text("object", "list")
                   .raw("data", jobs.done())
                   .boolean("has_more", more)
                   .text_or_null("last_id", last ? last->view() : std::string_view())
                   .done());
  dispatcher_.subscribers().leave(waiter);
}

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
    question.about = About::kCancel;
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
    case About::kResult:
      return say_job(waiter, view(job, waiter.jobs_path, question.all, record), 202, true);
    case About::kPreview:
      return say_preview(waiter, job);
    case About::kJob:
      return say_job(waiter, view(job, waiter.jobs_path, question.all, record), 200, true);
  }
}

// The last picture of a job that runs.
void JobsApi::say_preview(Waiter& waiter, const Job& job) {
  if (job.more == nullptr || job.more->preview == nullptr) {
    return fail(
        waiter,
        {.status = 404, .code = "not_found", .message = "There is no preview of this job now."});
  }
  const Preview& last = *job.more->preview;
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
    headers += "Retry-After: " + std::to_string(poll_after_s(view.eta_seconds.value_or(0))) + "\n";
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
