// JobsApi: lists of jobs of queues that hosts share, beside the store's and those in memory.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "worker/queue/api/jobs_api.h"
#include "worker/queue/shared_jobs/shared_record.h"

namespace penstock::queue {
namespace {

constexpr size_t kMostListedBytes = 16U << 10;  // of a job's record

// What is not promised is in lists once it has completed, as it is kept for its key.
bool is_shown(const JobRecord& record, const JobQuery& query) {
  return query.dead ? record.end.dead && !record.brief
                    : record.promised || record.status == JobStatus::kCompleted;
}

}  // namespace

struct JobsApi::SharedListing {
  Listing listing;
  JobPage page;
  size_t missing = 1;  // answers
  bool away = false;
  std::function<void(SharedListing&)> then;

  void answered() {
    if (--missing == 0) {
      page.put_in_order(listing.query.limit);
      then(*this);
    }
  }
};

// Those of the store's page, and of each queue that hosts share.
void JobsApi::list_shared(Waiter& waiter, Listing listing, JobPage page) {
  if (dispatcher_.shared() == nullptr) {
    return listed(waiter, std::move(listing), page);
  }
  Subscribers::ask(waiter);
  look_shared(std::move(listing), std::move(page), [this, &waiter](SharedListing& found) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    found.away ? fail_away(waiter) : listed(waiter, std::move(found.listing), found.page);
  });
}

void JobsApi::look_shared(Listing listing, JobPage page, std::function<void(SharedListing&)> then) {
  const auto all = std::make_shared<SharedListing>();
  all->listing = std::move(listing);
  all->page = std::move(page);
  all->then = std::move(then);
  const JobQuery& query = all->listing.query;
  for (const auto& each : dispatcher_.shared()->queues()) {
    SharedQueue& queue = *each;
    if (!query.queue.empty() && query.queue != queue.name()) {
      continue;
    }
    const limit::Hash128 whose = !query.owner ? limit::Hash128{}
                                 : all->listing.who.empty()
                                     ? *query.owner
                                     : intake_.hash_of(all->listing.who, &queue);
    const std::string owner =
        query.owner ? fmt::format("{:016x}{:016x}", whose.hi, whose.lo) : std::string();
    const auto told = [this, all, &queue,
                       whose](const SharedOrder::Answer<SharedOrder::List>& answer) {
      all->away = all->away || !answer;
      std::vector<std::string> waiting;
      for (const auto& [id, known] : answer.value.jobs) {
        JobRecord record;
        std::string_view result;
        const JobQuery& wanted = all->listing.query;
        if (decode(known, record, result) && is_shown(record, wanted) &&
            (!wanted.owner || record.owner == whose)) {
          if (record.status == JobStatus::kQueued) {
            waiting.push_back(id);
          }
          all->page.jobs.push_back(std::move(record));
        }
      }
      if (const auto last = parse_job_id(answer.value.last)) {
        all->page.cut(last);
      }
      if (waiting.empty() || !find_places(queue, std::move(waiting), all)) {
        all->answered();
      }
    };
    ++all->missing;
    const std::string before = query.before ? std::string(query.before->view()) : std::string();
    if (!queue.order().list(owner, query.dead, before, query.limit, kMostListedBytes, told)) {
      all->away = true;
      --all->missing;
    }
  }
  all->answered();
}

bool JobsApi::find_places(SharedQueue& queue, std::vector<std::string> ids,
                          const std::shared_ptr<SharedListing>& all) {
  const std::vector<std::string_view> views(ids.begin(), ids.end());
  return queue.positions(
      views, [ids, all](const SharedOrder::Answer<std::vector<int64_t>>& places) {
        for (size_t i = 0; places && i < ids.size() && i < places.value.size(); ++i) {
          all->listing.places[ids[i]] =
              static_cast<uint32_t>(std::clamp<int64_t>(places.value[i], 0, UINT32_MAX));
        }
        all->answered();
      });
}

// What a stream of all of an owner's jobs is to know of those.
void JobsApi::look_for_stream(const std::string& who, const std::string& jobs_path,
                              std::function<void(OwnerEvents::Seen)> then) {
  Listing listing;
  listing.who = who;
  listing.jobs_path = jobs_path;
  listing.query.owner = limit::Hash128{0, 1};  // somebody's, by `who`
  listing.query.limit = kStreamedJobs;
  look_shared(std::move(listing), {}, [this, then = std::move(then)](SharedListing& found) {
    OwnerEvents::Seen seen;
    for (const JobRecord& record : found.page.jobs) {
      seen.emplace_back(record.id.view(), render(listed_view(found.listing, record)));
    }
    then(found.away ? OwnerEvents::Seen() : std::move(seen));
  });
}

}  // namespace penstock::queue
