// JobsApi: lists of jobs, of those in memory and of the store's, and the stream of all of an
// owner's.
#include <algorithm>

#include "shared/http/query.h"
#include "worker/queue/api/jobs_api.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/text/jobs_path.h"
#include "worker/queue/text/json.h"
#include "worker/queue/text/reply.h"

namespace penstock::queue {
namespace {

constexpr uint32_t kDefaultPage = 20;
constexpr uint32_t kLargestPage = 100;
constexpr uint64_t kStreamRetrySeconds = 10;
constexpr int kMostRounds = 5;            // pages of the store that one list may take
constexpr size_t kMostLiveLooked = 1000;  // living jobs, for one

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
    listing.who = *owner;
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
  listing.who = ask.owner;
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
  if (nobodys || (dispatcher_.store() == nullptr && dispatcher_.shared() == nullptr)) {
    listing.rounds = kMostRounds;
    return listed(waiter, std::move(listing), JobPage{});
  }
  if (dispatcher_.store() == nullptr || !refuse_while_behind(waiter)) {
    list_more(waiter, std::move(listing));
  }
}

void JobsApi::list_more(Waiter& waiter, Listing listing) {
  if (dispatcher_.store() == nullptr) {
    return list_shared(waiter, std::move(listing), JobPage{});
  }
  Subscribers::ask(waiter);
  const JobQuery query = listing.query;
  dispatcher_.store()->list(query,
                            [this, &waiter, listing = std::move(listing)](JobPage page) mutable {
                              if (dispatcher_.subscribers().answered(waiter)) {
                                add_live(listing, page);
                                list_shared(waiter, std::move(listing), std::move(page));
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
void JobsApi::listed(Waiter& waiter, Listing listing, const JobPage& page) {
  bool more = page.more;
  const std::optional<JobId> looked = page.last;
  for (const JobRecord& record : page.jobs) {
    if (listing.jobs.size() == listing.limit) {
      more = true;
      break;
    }
    listing.query.before = record.id;
    const JobView each = listed_view(listing, record);
    if ((listing.statuses & bit(each.status)) != 0) {
      listing.jobs.push_back(render(each));
      if (listing.stream && is_shared(record)) {
        listing.elsewhere.emplace_back(record.id.view(), listing.jobs.back());
      }
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
    return dispatcher_.owner_events().begin(waiter, listing.query.owner->lo, listing.who,
                                            jobs.done(), listing.elsewhere, more,
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

}  // namespace penstock::queue
