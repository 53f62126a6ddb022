// The spans that are told of a job once it has ended, and who comes above and below:
//
//     the caller's span ──▶ job ──▶ limit, queue, run ──▶ the engine's spans
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "worker/queue/jobs/job.h"
#include "worker/queue/traces/job_trace.h"
#include "worker/queue/traces/span.h"

namespace penstock::queue {

// Of a job in memory; empty: it has none.
inline std::string_view trace_id_of(const Job& job) {
  return job.more == nullptr || job.more->trace == nullptr
             ? std::string_view()
             : std::string_view(job.more->trace->trace_id);
}
// The traceparent of the run that begins now.
std::string run_traceparent(const Job& job);
// Of a job that has ended, if its trace is sampled.
void tell_spans(const Job& job, const JobEnd& end, const std::function<void(Span)>& tell);

}  // namespace penstock::queue
