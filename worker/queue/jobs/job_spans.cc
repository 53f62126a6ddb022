#include "worker/queue/jobs/job_spans.h"

#include <fmt/format.h>

#include "worker/queue/jobs/job_view.h"
#include "worker/queue/traces/attributes.h"

namespace penstock::queue {
namespace {

constexpr uint64_t kUsPerMs = 1000;

void add_text(Span& span, std::string_view name, std::string_view value) {
  if (!value.empty()) {
    span.attributes.push_back({name, std::string(value)});
  }
}
void add_number(Span& span, std::string_view name, int64_t value) {
  span.attributes.push_back({name, value});
}

// REQUIRES: it has ended.
void note_failure(Span& span, const JobEnd& end) {
  span.failed = end.status == JobStatus::kFailed || end.status == JobStatus::kExpired;
  if (span.failed) {
    add_text(span, span::kErrorType,
             !end.error_code.empty() ? end.error_code : std::to_string(end.http_status));
  }
}

}  // namespace

std::string run_traceparent(const Job& job) {
  JobTrace& trace = *job.more->trace;
  http::TraceContext context = trace.context;
  context.parent = trace.run = span_id(trace.context.parent, kOfRuns + job.attempts());
  return http::render_traceparent(context);
}

void tell_spans(const Job& job, const JobEnd& end, const std::function<void(Span)>& tell) {
  if (job.more == nullptr || job.more->trace == nullptr) {
    return;
  }
  const JobTrace& trace = *job.more->trace;
  if (!trace.spans || !trace.context.sampled()) {
    return;
  }
  const std::string& queue = job.home()->queue->settings.name;
  const auto limited_ms = static_cast<int64_t>(trace.limited_us / kUsPerMs);
  const auto span = [&](std::string_view name, http::SpanId id, int64_t begin_ms, int64_t end_ms) {
    return Span{.trace = trace.context.trace,
                .id = id,
                .parent = trace.context.parent,
                .name = name,
                .begin_ms = begin_ms,
                .end_ms = end_ms};
  };
  Span all = span(span::kJob, trace.context.parent, job.created_ms - limited_ms, end.finished_ms);
  all.parent = trace.caller;
  all.kind = Span::Kind::kServer;
  add_text(all, span::kMessageId, job.id().view());
  add_text(all, span::kMessagingDestination, queue);
  add_text(all, span::kOutcome, end.dead ? "dead" : name_of(end.status));
  add_text(all, span::kOwner, job.owner == 0 ? "" : fmt::format("{:016x}", job.owner));
  add_number(all, span::kAttempts, end.attempts);
  note_failure(all, end);
  tell(std::move(all));
  const auto within = [&](std::string_view name, uint64_t which, int64_t begin_ms, int64_t end_ms) {
    return span(name, span_id(trace.context.parent, which), begin_ms, end_ms);
  };
  if (trace.limited_us > 0) {
    tell(within(span::kLimit, kOfLimit, job.created_ms - limited_ms, job.created_ms));
  }
  const bool ran = end.started_ms != 0;
  Span waited =
      within(span::kQueue, kOfQueue, job.created_ms, ran ? end.started_ms : end.finished_ms);
  waited.kind = Span::Kind::kConsumer;
  add_text(waited, span::kMessagingSystem, "penstock");
  add_text(waited, span::kMessagingDestination, queue);
  add_text(waited, span::kMessageId, job.id().view());
  tell(std::move(waited));
  if (ran) {
    Span run = within(span::kRun, kOfRuns + end.attempts, end.started_ms, end.finished_ms);
    if (trace.run != http::SpanId{}) {
      run.id = trace.run;
    }
    run.kind = Span::Kind::kClient;
    add_text(run, span::kGenAiSystem, "penstock");
    add_text(run, span::kOperation, trace.operation);
    add_text(run, span::kRequestModel, job.home()->model);
    add_number(run, span::kInputTokens, static_cast<int64_t>(end.prompt_tokens));
    add_number(run, span::kOutputTokens, static_cast<int64_t>(end.completion_tokens));
    add_number(run, span::kDeviceMs, static_cast<int64_t>(end.device_ns / kNsPerMs));
    note_failure(run, end);
    tell(std::move(run));
  }
}

}  // namespace penstock::queue
