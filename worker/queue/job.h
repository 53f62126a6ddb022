// Job: what penstockd keeps of one request from SUBMIT to its end.
#pragma once

#include <cstdint>
#include <list>
#include <string>

#include "shared/base/job_id.h"
#include "worker/queue/scheduler.h"

namespace penstock::queue {

class CallerSession;
class WorkerSession;

struct Job : Scheduler::Ticket {
  CallerSession* caller = nullptr;  // its promise is this open connection
  uint64_t caller_job = 0;          // the id the caller chose
  WorkerSession* worker = nullptr;  // while it runs
  uint64_t number = 0;              // while it runs: its id on the worker's connection
  std::string frame;                // SUBMIT as it goes to a worker; empty once the answer began
  JobId id;
  uint32_t held_bytes = 0;        // what the frame took when it came
  bool answer_began = false;      // HEAD went out: it cannot be started again
  int64_t sign_due_ns = 0;        // the caller hears of it by then
  std::list<Job>::iterator self;  // in the Dispatcher's list, which owns it
};

}  // namespace penstock::queue
