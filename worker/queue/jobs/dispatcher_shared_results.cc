// Dispatcher: results of shared jobs that are too large for Redis (shared_jobs/large_results.h).
#include <algorithm>
#include <utility>

#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

// How long the end of such a job is known; that of which an URL is told, while that is tried, too.
int64_t known_for_ms(const JobRecord& record, const QueueConfig& queue) {
  constexpr int64_t kWhileTriedMs = 345'600'000;  // as over.lua has it
  return (record.brief ? kBriefMs : kept_ms(queue)) + (record.callback.empty() ? 0 : kWhileTriedMs);
}

// Those who wait for the answer itself need all of it; of events, as much is told as is kept of one
// that is not over.
uint64_t first_wanted(const Job& job, uint64_t bytes) {
  for (const Waiter* waiter = job.waiters(); waiter != nullptr; waiter = waiter->next) {
    if (waiter->kind != Waiter::Kind::kEvents) {
      return 0;
    }
  }
  return bytes - std::min(bytes, Subscribers::kMostRest);
}

}  // namespace

// It lies with the other hosts' first, and is told of in the same breath as the end.
void Dispatcher::store_shared(Job& job, JobRecord record) {
  SharedQueue& queue = *shared(*job.home()->queue);
  const int64_t keep_ms = known_for_ms(record, notes_.at(job.home()->queue).config);
  shared_->results()->put(
      queue.order(), std::string(job.id().view()), job.more->answer.tail, keep_ms,
      [this, id = job.id(), record = std::move(record)](const Result<StoredResult>& stored) {
        result_stored(id, record, stored);
      });
}

// What cannot be stored is Redis's to keep, if it is not too large for that.
void Dispatcher::result_stored(const JobId& id, JobRecord record,
                               const Result<StoredResult>& stored) {
  Job* const job = find(id);
  if (job == nullptr || !job->ending) {
    return;
  }
  SharedQueue& queue = *shared(*job->home()->queue);
  const auto drop = [this, &queue, stored] {
    if (stored) {
      shared_->results()->remove(queue.order(), stored->name);
    }
  };
  const std::string text(id.view());
  if (queue.fence_of(text) == 0) {
    drop();
    return ended_shared(record.end, SharedOrder::End::kNotOurs);
  }
  std::string_view answer;
  if (stored) {
    record.stored_name = stored->name;
    record.stored_sha256 = stored->sha256;
    record.result_bytes = stored->bytes;
  } else if (log(Level::kError,
                 "the result of job " + text + " cannot be stored: " + stored.error().message);
             job->more->answer.bytes <= kMostSharedResult) {
    answer = job->more->answer.tail;
  } else {
    JobEnd& end = record.end;
    record.status = end.status = JobStatus::kFailed;
    end.http_status = 502;
    end.content_type.clear();
    end.headers.clear();
    end.error_code = "engine_failed";
    end.error = "Its result could not be stored.";
  }
  const int64_t known_ms = known_for_ms(record, notes_.at(job->home()->queue).config);
  queue.finish(text, encode(record, answer), keep_ms(record), 'D',
               [this, drop, stored, known_ms, &queue, end = record.end](SharedOrder::End how) {
                 if (how == SharedOrder::End::kNotOurs) {
                   drop();             // where it was over, that may have been by this
                 } else if (stored) {  // it is known from now on: Redis may have been away
                   LargeResults::note(queue.order(), stored->name, known_ms,
                                      [](const SharedOrder::Answer<bool>&) {});
                 }
                 ended_shared(end, how);
               });
}

// Those who wait here hear all of it, wherever it lies.
void Dispatcher::end_away_whole(const JobId& id, const SharedOrder::Known& known) {
  JobRecord record;
  std::string_view answer;
  Job* const job = find(id);
  if (job->waiters() == nullptr || !decode(known, record, answer) || record.stored_name.empty() ||
      shared_->results() == nullptr) {
    return end_away(*job, known);
  }
  if (std::exchange(job->more->reading, true)) {
    return;
  }
  const uint64_t first = first_wanted(*job, record.result_bytes);
  const auto read = [this, id, known, record, first](const Result<std::string>& bytes) {
    Job* const it = find(id);
    if (it == nullptr) {
      return;
    }
    it->more->reading = false;
    if (!it->away) {
      return;
    }
    if (first_wanted(*it, record.result_bytes) < first) {  // somebody has joined who needs all
      return end_away_whole(id, known);
    }
    JobRecord told = record;
    SharedOrder::Known now = known;
    if (!bytes) {
      log(Level::kError, "the result of job " + std::string(id.view()) +
                             " cannot be had: " + bytes.error().message);
      told.stored_name.clear();
      told.end.http_status = 503;
      told.end.content_type.clear();
      told.end.error_code = "busy";
      told.end.error = "The result cannot be had at the moment. Ask for it again later.";
    }
    now.result = encode(told, bytes ? std::string_view(*bytes) : std::string_view());
    end_away(*it, now);
  };
  shared_->results()->read(record, first, read);
}

}  // namespace penstock::queue
