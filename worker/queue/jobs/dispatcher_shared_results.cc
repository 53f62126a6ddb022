// Dispatcher: results of shared jobs that are too large for Redis (shared_jobs/large_results.h).
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

// It lies with the other hosts' first, and is told of in the same breath as the end.
void Dispatcher::store_shared(Job& job, JobRecord record) {
  SharedQueue& queue = *shared(*job.home()->queue);
  const uint64_t fence = queue.fence_of(std::string(job.id().view()));
  const int64_t keep_ms =
      record.brief ? kBriefMs
                   : std::max(notes_.at(job.home()->queue).config.keep_results_ns / kNsPerMs,
                              SharedQueue::kLeastKeptMs);
  shared_->results()->put(
      queue.order(), std::string(job.id().view()), fence, job.more->answer.tail, keep_ms,
      [this, id = job.id(), fence, record = std::move(record)](const Result<StoredResult>& stored) {
        result_stored(id, fence, record, stored);
      });
}

// What cannot be stored is Redis's to keep, if it is not too large for that.
void Dispatcher::result_stored(const JobId& id, uint64_t fence, JobRecord record,
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
  if (fence == 0 || queue.fence_of(text) != fence) {
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
  queue.finish(text, encode(record, answer), keep_ms(record), 'D',
               [this, drop, end = record.end](SharedOrder::End how) {
                 if (how != SharedOrder::End::kEnded) {
                   drop();
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
  shared_->results()->read(record, [this, id, known, record](const Result<std::string>& bytes) {
    Job* const it = find(id);
    if (it == nullptr || !it->away) {
      return;
    }
    JobRecord whole = record;
    whole.stored_name.clear();
    SharedOrder::Known now = known;
    if (!bytes) {
      log(Level::kError, "the result of job " + std::string(id.view()) +
                             " cannot be had: " + bytes.error().message);
      whole.end.http_status = 503;
      whole.end.content_type.clear();
      whole.end.error_code = "busy";
      whole.end.error = "The result cannot be had at the moment. Ask for it again later.";
    }
    now.result = encode(whole, bytes ? std::string_view(*bytes) : std::string_view());
    end_away(*it, now);
  });
}

}  // namespace penstock::queue
