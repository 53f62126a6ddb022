// The line in the log of a job's end: what became of it and what it took, and nothing of what it
// asked or of who asked.
//
//     … [info] job ended job=job_01… outcome=completed queue=default model=demo
//       owner=9f86d081884c7d65 queue_ms=12 run_ms=340 attempts=0 prompt_tokens=9
//       completion_tokens=40 device_ms=310
//
// `owner`: the latter half of its hash, as operators see it. `queue_ms`: until its last attempt
// began, and `run_ms` from then on; without `run_ms` it did not run at its end. `attempts`: those
// that failed. Ends that are our own fault are warnings.
#pragma once

#include "worker/queue/jobs/job.h"

namespace penstock::queue {

void log_end(const Job& job, const JobEnd& end);

}  // namespace penstock::queue
