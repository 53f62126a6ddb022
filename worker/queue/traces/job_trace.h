// JobTrace: which trace a job belongs to.
//
// Where `traces` is off, what the caller sent goes on as it came, and no span is made. Where it is
// on, the job's own span stands between, and whoever brings no trace (or one that breaks a rule:
// shared/http/trace_context.h) begins one with the job. Which of both it is stays as it was when
// the job came. The id of the job's span follows from the job's, those of the spans within it from
// that.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/job_id.h"
#include "shared/http/trace_context.h"
#include "worker/queue/config/traces_config.h"

namespace penstock::queue {

// What a SUBMIT says of that.
struct Traced {
  std::string headers;
  std::string path;
  uint64_t limited_us = 0;
};

struct JobTrace {
  http::TraceContext context;  // `parent`: the job's own span; where traces are off, the caller's
  bool spans = false;          // ... which it is
  http::SpanId caller{};       // the span above the job's; all 0: none
  http::SpanId run{};          // the span of its run, once one has begun; not kept on disk
  std::string operation;       // of gen_ai: "chat", "text_completion"; empty: another
  std::string state;           // tracestate
  uint64_t limited_us = 0;     // from its request to when Nginx handed it over; not kept on disk
  std::string trace_id;        // of `context`, as text
};

// `headers`, `path`: of the SUBMIT. nullptr: the job belongs to none.
std::unique_ptr<JobTrace> begin_trace(const Ulid& job, std::string_view headers,
                                      std::string_view path, const TracesConfig& config);
// As it is kept with the job: "TRACEPARENT CALLER OPERATION STATE", '-' for what there is not. A
// CALLER of zeros: the job has a span, and nobody's is above it.
std::string text_of(const JobTrace& trace);
std::unique_ptr<JobTrace> parse_trace(std::string_view text);
// The trace's id within such a text; empty: it is none.
std::string_view trace_id_in(std::string_view text);
// Such a text for the same job, queued again after its end: it has another span.
std::string renewed_trace(std::string_view text, const Ulid& job, int64_t now_ms);
// What others are told who are to go on with the trace: "Name: value", traceparent and tracestate.
// `on`: whether the job's span is told of; else they go on with its caller's.
std::vector<std::string> trace_headers(std::string_view text, bool on);

// Whose id a span has. Runs count from kOfRuns.
enum SpanOf : uint64_t { kOfJob = 1, kOfLimit, kOfQueue, kOfTrace, kOfTraceToo, kOfRuns = 64 };
http::SpanId span_id(const Ulid& job, uint64_t which);
// Within the job's span.
http::SpanId span_id(const http::SpanId& job, uint64_t which);

}  // namespace penstock::queue
