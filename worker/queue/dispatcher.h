// Dispatcher: brings callers' jobs and workers' credit together.
//
// It owns every job from SUBMIT to its end, asks the Scheduler which is next, and speaks through
// the sessions. It knows no process and opens no socket.
//
// Invariants, true whenever no call is in progress:
//   - no job waits while a worker that may take it has credit, unless its queue is paused;
//   - a job is in its caller's list, in jobs_, and known to the scheduler; or in none of them;
//   - it is in a worker's list exactly while the scheduler calls it running.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/job_id.h"
#include "shared/limit/siphash.h"
#include "shared/wire/messages.h"
#include "shared/wire/status_page.h"
#include "worker/queue/caller_session.h"
#include "worker/queue/config.h"
#include "worker/queue/connection.h"
#include "worker/queue/job.h"
#include "worker/queue/roster.h"
#include "worker/queue/scheduler.h"
#include "worker/queue/worker_session.h"

namespace penstock::queue {

class Dispatcher {
 public:
  // Each caller hears of each of its jobs at least that often (PROTOCOL: 15 s).
  static constexpr int64_t kSignOfLifeNs = 10 * kNsPerSec;

  struct Counters {
    uint64_t accepted = 0;
    uint64_t refused = 0;  // never accepted: 4xx, 503
    uint64_t completed = 0;
    uint64_t failed = 0;     // engine's own errors included
    uint64_t cancelled = 0;  // by the caller, or for not reading its answer
    uint64_t expired = 0;    // deadline
    uint64_t retried = 0;    // attempts that were followed by another
  };

  // Reads its clock from `wires`, which must outlive it.
  explicit Dispatcher(Wires& wires, int64_t start_unix_s);
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  // Takes over queues, workers and limits. Jobs that nobody serves any more fail with 404.
  void apply(const Config& config);

  // From callers. `bytes` is the whole SUBMIT frame that `submit` points into.
  void submit(CallerSession& caller, uint64_t caller_job, const wire::Submit& submit,
              std::string_view bytes);
  void refuse_crowded(CallerSession& caller, uint64_t caller_job);
  // 413: the body, or the frame about it, has `bytes` bytes.
  void refuse_oversized(CallerSession& caller, uint64_t caller_job, uint64_t bytes);
  // Nobody wants it any more: it leaves the queue, or its worker is told. The job is gone.
  void abandon(Job& job);

  // From workers.
  void worker_ready(WorkerSession& worker);
  // Its jobs go back, or fail. `next_start_ns`: when another is started.
  void worker_lost(WorkerSession& worker, int64_t next_start_ns);
  void worker_leaving(WorkerSession& worker);
  void fill(WorkerSession& worker);                 // gives it jobs as long as it has credit
  void recount(Scheduler::Lane& lane);              // a capacity changed
  void forward(Job& job, std::string_view bytes);   // HEAD, CHUNK, PROGRESS
  void complete(Job& job, std::string_view bytes);  // DONE; the job is gone
  void fail(Job& job, const wire::Failed& failed);  // may be tried again; else the job is gone

  // Deadlines, back-offs and signs of life.
  void advance_to(int64_t now_ns);
  int64_t next_event() const;

  // A paused queue takes jobs in, and gives none out.
  void pause(Scheduler::Queue& queue);
  void resume(Scheduler::Queue& queue);

  void drain() { draining_ = true; }  // from now on, new jobs get 503
  bool draining() const { return draining_; }
  // The time to finish is over: every job that is left fails.
  void give_up();
  size_t jobs() const { return jobs_.size(); }

  Scheduler& scheduler() { return scheduler_; }
  Roster& roster() { return roster_; }
  const Counters& counters() const { return counters_; }
  int64_t held_bytes() const { return held_bytes_; }

  // Predicted, for a job of the lowest class that came now.
  int64_t wait_for_newcomer_ns(Scheduler::Queue& queue) const;
  // Jobs that the queue's live workers can run at once.
  uint32_t slots(const Scheduler::Queue& queue) const;

  struct Availability {
    wire::QueueState state = wire::QueueState::kOpen;
    int64_t retry_after_s = 1;  // when it is not open
  };
  // For a job of this lane that came now.
  Availability availability(const Scheduler::Lane& lane) const;

 private:
  // Answers what penstockd answers itself, or refuses; nullptr then. Else the job's lane.
  Scheduler::Lane* route(CallerSession& caller, uint64_t caller_job, const wire::Submit& submit);
  void accept(CallerSession& caller, uint64_t caller_job, const wire::Submit& submit,
              std::string_view bytes, Scheduler::Lane& lane, const Scheduler::Claim& claim);
  void say_accepted(Job& job);
  void refuse(CallerSession& caller, uint64_t caller_job, const wire::Failed& failed);
  void refuse_busy(CallerSession& caller, uint64_t caller_job, const Scheduler::Lane& lane,
                   const Availability& availability);
  void refuse_owner(CallerSession& caller, uint64_t caller_job, const Scheduler::Lane& lane,
                    const Scheduler::Claim& claim);
  uint64_t wait_ms(const Job& job) const;
  void offer(const Scheduler::Lane& lane);
  void fill_all();
  void put_back(Job& job, Scheduler::Cause cause, std::string_view why);
  void end(Job& job, const wire::Failed& failed);
  void erase(Job& job, Scheduler::Outcome outcome);
  void expire(Job& job);
  void fail_unserved();
  bool serves(const WorkerSession& worker, const Scheduler::Lane& lane) const;

  Wires& wires_;
  int64_t start_unix_s_;
  limit::Secret secret_;  // of the owners' hashes
  Scheduler scheduler_;
  Roster roster_;
  LimitsConfig limits_;
  JobIdMaker ids_;
  std::list<Job> jobs_;                      // the one whose caller must hear next is first
  std::vector<WorkerSession*> workers_;      // those that are ready
  std::vector<Scheduler::Expired> expired_;  // scratch of advance_to()
  uint64_t last_number_ = 0;
  int64_t held_bytes_ = 0;  // of frames
  bool draining_ = false;
  Counters counters_;
};

}  // namespace penstock::queue
