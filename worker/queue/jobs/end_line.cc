#include "worker/queue/jobs/end_line.h"

#include <fmt/format.h>

#include <algorithm>

#include "worker/queue/jobs/job_spans.h"
#include "worker/queue/jobs/job_view.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

constexpr int kServerError = 500;

Level level_of(const JobEnd& end) {
  const bool wrong = end.status == JobStatus::kFailed || end.status == JobStatus::kExpired;
  return wrong && end.http_status >= kServerError ? Level::kWarn : Level::kInfo;
}

}  // namespace

void log_end(const Job& job, const JobEnd& end) {
  const Level level = level_of(end);
  if (!logs(level)) {
    return;
  }
  const bool ran = end.started_ms != 0;
  const int64_t queue_ms = (ran ? end.started_ms : end.finished_ms) - job.created_ms;
  const LogField run =
      ran ? LogField("run_ms", std::max<int64_t>(end.finished_ms - end.started_ms, 0))
          : LogField("run_ms", "");
  const LogField status =
      end.http_status == 0 ? LogField("status", "") : LogField("status", end.http_status);
  log(level, "job ended",
      {{"job", job.id().view()},
       {"outcome", end.dead ? "dead" : name_of(end.status)},
       status,
       {"error", end.error_code},
       {"queue", job.home()->queue->settings.name},
       {"model", job.home()->model},
       {"owner", job.owner == 0 ? std::string() : fmt::format("{:016x}", job.owner)},
       {"trace", trace_id_of(job)},
       {"queue_ms", std::max<int64_t>(queue_ms, 0)},
       run,
       {"attempts", end.attempts},
       {"prompt_tokens", static_cast<int64_t>(end.prompt_tokens)},
       {"completion_tokens", static_cast<int64_t>(end.completion_tokens)},
       {"device_ms", static_cast<int64_t>(end.device_ns / kNsPerMs)}});
}

}  // namespace penstock::queue
