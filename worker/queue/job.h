// Job: what penstockd keeps in memory of one request, from SUBMIT to its end.
//
// A job's promise is either the open connection of those who wait for its answer, or what the store
// has written of it: then it outlives them, and penstockd.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "shared/base/job_id.h"
#include "shared/limit/siphash.h"
#include "worker/queue/answer.h"
#include "worker/queue/job_record.h"
#include "worker/queue/scheduler.h"
#include "worker/queue/waiter.h"

namespace penstock::queue {

class WorkerSession;

struct Job : Scheduler::Ticket {
  // What only some jobs have: those that run, that others may join, or that hold something at the edge.
  struct More {
    std::string frame;     // SUBMIT as it goes to a worker; empty: the store has it, or the answer began
    Answer answer;         // if it is kept
    limit::Hash128 key;    // that others join by; {}: none
    limit::Hash128 digest; // of what was asked
    std::string receipt;   // the edge's
    double progress = 0;   // 0 to 1
    uint32_t step = 0;
    uint32_t steps = 0;
    bool has_progress = false;
    std::unique_ptr<JobRecord> keep;  // not promised, but kept for its key once it has ended
  };

  static constexpr uint32_t kNotPredicted = UINT32_MAX;

  JobId id;
  enum class Promise : uint8_t {
    kNone,   // to those who wait for it
    kAsked,  // the store is writing it
    kMade,   // it is on disk
  } promise = Promise::kNone;
  bool answer_began = false;   // HEAD came
  bool keeps_answer = false;   // in `more->answer`
  bool ending = false;         // the store is writing its end
  bool looking_up = false;     // the store is asked whether its key is known; it is in no queue yet
  uint32_t predicted_ms = kNotPredicted;  // how long it would wait, when it came
  uint32_t held_bytes = 0;     // of the frame, while it is in memory
  limit::Hash128 owner;
  Scheduler::Lane* home = nullptr;  // its lane, also once it has ended; nullptr: looking_up
  WorkerSession* worker = nullptr;  // while it runs
  uint64_t number = 0;              // while it runs: its id on the worker's connection
  Waiter* waiters = nullptr;
  std::unique_ptr<More> more;
  std::unique_ptr<Job> next_in_table;  // see JobTable

  // By which the edge knows it.
  uint64_t edge_number() const noexcept { return sequence_of(id); }
  More& extra() {
    if (more == nullptr) {
      more = std::make_unique<More>();
    }
    return *more;
  }
};

}  // namespace penstock::queue
