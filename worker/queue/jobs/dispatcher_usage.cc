// Dispatcher: what the ledger is told of jobs whose promise is their caller's connection, and of
// those that hosts share. Ends of others are counted by the store, with the end (store/usage.h).
//
// The edge settles what such a job was charged by what it hears of it: DONE says what was used,
// FAILED gives back, all of it where it is no fault of the caller's. Where it knows better (its
// caller left, or the answer was cut short) it says by SPENT what it has settled.
#include "worker/queue/jobs/caller.h"
#include "worker/queue/jobs/dispatcher.h"

namespace penstock::queue {

using PromiseState = Job::PromiseState;

namespace {

constexpr uint16_t kFirstOwnFailure = 500;
constexpr UsageCount kCharged[] = {kRequests, kPromptTokens, kCompletionTokens, kGpuMs};

}  // namespace

UsageKey Dispatcher::usage_key(const Job& job) const {
  return {time_.ms() / kHourMs, job.owner, job.home()->queue->settings.name, job.home()->model};
}

// What the edge settles by itself.
UsageCounts Dispatcher::usage_of_waited(const JobEnd& end) {
  JobEnd settled = end;
  if (!end.done) {
    settled.prompt_tokens = settled.completion_tokens = settled.device_ns = 0;
  }
  UsageCounts counts = usage_of(settled, false);
  if (end.status == JobStatus::kFailed && (end.done || end.http_status < kFirstOwnFailure)) {
    settled.status = JobStatus::kCancelled;
    UsageCounts charged = usage_of(settled, false);
    charged[kCancelledJobs] = 0;
    counts += charged;
  }
  return counts;
}

bool Dispatcher::counts_here(const Job& job) const {
  return usage_.is_kept() && job.promise == PromiseState::kNone && !job.shared && !job.away &&
         job.home() != nullptr;
}

void Dispatcher::count_usage(const Job& job, const JobEnd& end) {
  if (!counts_here(job)) {
    return;
  }
  const UsageKey key = usage_key(job);
  UsageCounts counts = usage_of_waited(end);
  if (job.more != nullptr && job.more->paid) {
    for (const UsageCount each : kCharged) {
      counts[each] = 0;
    }
  }
  const bool given_back = end.status == JobStatus::kFailed && !end.done &&
                          end.http_status >= kFirstOwnFailure && !job.answer_began;
  UsageCounts of_joined;
  of_joined[kRequests] = 1;
  for (const Waiter* each = job.waiters(); each != nullptr; each = each->next) {
    if (each->duplicate && (given_back || end.status == JobStatus::kExpired)) {
      counts -= of_joined;  // of those who had joined, too
    } else if (each->kind == Waiter::Kind::kAnswer) {
      each->caller->note_counted(each->id, key, each->duplicate ? of_joined : counts);
    }
  }
  usage_.add(key, counts);
}

void Dispatcher::count_joined(const Scheduler::Lane& lane, uint64_t owner) {
  UsageCounts counts;
  counts[kJoinedRequests] = counts[kRequests] = 1;
  usage_.add({time_.ms() / kHourMs, owner, lane.queue->settings.name, lane.model}, counts);
}

// Nobody waits for it any more. `spent`: what the edge has settled; nullptr: it did not say, as it
// had not heard of the job, and charges the request alone, or was killed.
void Dispatcher::count_left(Job& job, const UsageCounts* spent) {
  if (counts_here(job)) {
    usage_.add(usage_key(job), usage_of_cancelled(spent));
  } else if (job.shared && spent != nullptr) {
    job.more->spent = std::make_unique<UsageCounts>(*spent);
  }
}

UsageCounts Dispatcher::usage_of_cancelled(const UsageCounts* spent) {
  UsageCounts counts = spent != nullptr ? *spent : UsageCounts();
  counts[kCancelledJobs] = 1;
  counts[kRequests] = spent != nullptr ? counts[kRequests] : 1;
  return counts;
}

// Of one that others wait for still.
void Dispatcher::count_leaver(Job& job, bool duplicate, const UsageCounts& spent) {
  job.more->paid = job.more->paid || !duplicate;
  UsageCounts counts = spent;
  counts[kRequests] -= duplicate ? 1 : 0;
  usage_.add(usage_key(job), counts);
}

// Of a queue that hosts share: it ran here, and its end here is the one that counts.
void Dispatcher::count_shared(const Job& job, const JobEnd& end) {
  const JobRecord& record = *job.more->keep;
  if (job.more->spent != nullptr) {
    return usage_.add(usage_key(job), usage_of_cancelled(job.more->spent.get()));
  }
  usage_.add(usage_key(job),
             record.promised || record.paid ? usage_of(end, record.paid) : usage_of_waited(end));
}

void Dispatcher::count_cancelled(const JobRecord& record) {
  usage_.add({time_.ms() / kHourMs, record.owner.lo, record.queue, record.model},
             usage_of(record.end, record.paid));
}

// Its end came before the edge had heard of it.
void Dispatcher::correct_usage(Caller& caller, uint64_t id, const UsageCounts& spent) {
  if (const auto counted = caller.take_counted(id)) {
    UsageCounts difference = spent;
    for (const UsageCount each : kCharged) {
      difference[each] -= counted->counts[each];
    }
    usage_.add({time_.ms() / kHourMs, counted->key.owner, counted->key.queue, counted->key.model},
               difference);
  }
}

}  // namespace penstock::queue
