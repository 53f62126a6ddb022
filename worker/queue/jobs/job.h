// Job: what penstockd keeps in memory of one request, from SUBMIT to its end.
//
// A job's promise is either the open connection of those who wait for its answer, or what the store
// has written of it: then it outlives them, and penstockd.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "shared/base/job_id.h"
#include "shared/base/shared_bytes.h"
#include "shared/limit/siphash.h"
#include "worker/queue/jobs/answer.h"
#include "worker/queue/jobs/waiter.h"
#include "worker/queue/order/scheduler.h"
#include "worker/queue/store/job_record.h"
#include "worker/queue/store/usage.h"

namespace penstock::queue {

class HeardAnswer;
struct JobTrace;
class WorkerSession;

// What a job that runs looks like so far.
struct Preview {
  std::string content_type;
  std::string body;
  uint32_t number = 0;  // 1: its first
};

struct Job : Scheduler::Ticket {
  // What only some jobs have: jobs that run or have ended, that somebody waits for, that others may
  // join, or that hold something at the edge. The store has all of this for most queued jobs.
  struct More {
    SharedBytes
        frame;  // SUBMIT as it goes to a worker; none: the store has it, or the answer began
    uint32_t frame_bytes = 0;      // of the frame, while it is in memory
    Scheduler::Foretold foretold;  // when it came
    bool is_foretold = false;
    int64_t ends_by_ns = 0;  // its deadline once it has started, which is later than that until
                             // then; 0: they are one
    Waiter* waiters = nullptr;
    WorkerSession* worker = nullptr;     // while it runs
    uint64_t number = 0;                 // while it runs: its id on the worker's connection
    uint32_t suspect = 0;                // of a group of suspects (suspects.h): its number
    Scheduler::Lane* home = nullptr;     // once it has ended: its lane
    uint64_t share = 0;                  // likewise: whose share it took, for the webhooks' senders
    uint32_t position = 1;               // while it is away: as Redis said last
    uint64_t fence = 0;                  // while it is shared or away: of its last taking; 0: none
    std::shared_ptr<JobTrace> trace;     // that it belongs to; nullptr: none
    std::shared_ptr<HeardAnswer> heard;  // while it is away, and somebody asks for its answer
    uint8_t restarts = 0;                // of its answer since, where it runs
    bool reading = false;                // ... its end is known, and its large result on its way
    bool recalled = false;               // ... for its receipt's sake, from an earlier life
    uint64_t taken_bytes = 0;            // of its answer, since its worker was asked for more
    Answer answer;                       // if it is kept
    limit::Hash128 key;                  // that others join by; {}: none
    limit::Hash128 digest;               // of what was asked
    std::string receipt;                 // the edge's
    std::string label;                   // its owner's words for it
    double progress = 0;                 // 0 to 1
    uint32_t step = 0;
    uint32_t steps = 0;
    bool has_progress = false;
    bool paid = false;  // who was charged for it has left, and others wait still
    std::unique_ptr<UsageCounts>
        spent;                         // while it is shared, and was cancelled: what the edge said
    std::unique_ptr<Preview> preview;  // the last
    // Not promised, but kept for its key once it has ended; or what Redis has of it.
    std::unique_ptr<JobRecord> keep;
  };

  Ulid ulid;
  int64_t created_ms : 48 = 0;
  enum class PromiseState : uint8_t {
    kNone,   // to those who wait for it
    kAsked,  // the store is writing it
    kMade,   // it is on disk
  } promise : 2 = PromiseState::kNone;
  bool answer_began : 1 = false;  // HEAD came
  bool answer_fails : 1 = false;  // ... with the status of an error
  bool keeps_answer : 1 = false;  // in `more->answer`
  bool ending : 1 = false;        // the store is writing its end
  bool has_callback : 1 = false;  // a webhook is to be sent of its end
  bool by_date : 1 = false;       // while scheduled: due when the time of day says so
  bool looking_up : 1 = false;    // the store or a worker is asked about it; it is in no queue yet
  bool shown : 1 = false;         // it waits, and a worker is asked whether it would refuse it
  bool passed : 1 = false;        // ... and would not
  // Of a queue that hosts share (dispatcher_shared.cc):
  bool shared : 1 = false;    // taken from there, to run here
  bool tells : 1 = false;     // ... and its answer goes to other hosts
  bool away : 1 = false;      // its order is there; somebody waits for its end here
  bool unwanted : 1 = false;  // ... and it was cancelled, as nobody asks for its answer
  uint64_t owner = 0;         // who may see it: of the keyed hash, the lower half; 0: nobody's
  std::unique_ptr<More> more;
  Job* next_in_table = nullptr;  // see JobTable
  Job* older = nullptr;          // see OwnedJobs
  Job* newer = nullptr;          // likewise

  JobId id() const noexcept { return id_of(ulid); }
  uint64_t hash() const noexcept { return ulid.low; }
  More& extra() {
    if (more == nullptr) {
      more = std::make_unique<More>();
    }
    return *more;
  }
  Waiter* waiters() const noexcept { return more == nullptr ? nullptr : more->waiters; }
  WorkerSession* worker() const noexcept { return more == nullptr ? nullptr : more->worker; }
  uint32_t frame_bytes() const noexcept { return more == nullptr ? 0 : more->frame_bytes; }
  // Its lane, even after it has ended. nullptr: looking_up.
  Scheduler::Lane* home() const noexcept {
    return more == nullptr || more->home == nullptr ? lane() : more->home;
  }
  // The scheduler has forgotten it, or may do so next.
  void remember(Scheduler::Lane& lane, uint64_t share) {
    extra().home = &lane;
    more->share = share;
  }
  // The number by which the edge knows it.
  uint64_t edge_number() const noexcept { return ulid.sequence(); }
};
static_assert(sizeof(Job) <= 128, "hundreds of thousands may be queued");

}  // namespace penstock::queue
