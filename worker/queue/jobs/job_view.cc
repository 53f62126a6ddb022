#include "worker/queue/jobs/job_view.h"

#include <array>
#include <charconv>
#include <cstdio>

#include "shared/base/utc.h"
#include "worker/queue/text/json.h"
#include "worker/queue/traces/job_trace.h"

namespace penstock::queue {
namespace {

constexpr std::array<std::string_view, 7> kNames = {
    "scheduled", "queued", "processing", "completed", "failed", "cancelled", "expired"};
constexpr std::array<std::string_view, 4> kTold = {"delivered", "given_up", "gone", "due"};
constexpr int64_t kMsPerSec = 1000;

std::string seconds_or_null(int64_t ms) {
  return ms == 0 ? "null" : std::to_string(ms / kMsPerSec);
}

std::string describe_progress(const JobView& job) {
  if (!job.progress) {
    return "null";
  }
  char fraction[32];
  std::snprintf(fraction, sizeof fraction, "%.4f", *job.progress);
  JsonObject progress;
  progress.raw("fraction", fraction);
  if (job.steps > 0) {
    progress.number("step", job.step).number("steps", job.steps);
  }
  return progress.done();
}

std::string describe_error(const JobView& job) {
  return job.error_code.empty()
             ? "null"
             : JsonObject().text("code", job.error_code).text("message", job.error).done();
}

void add_origin(JsonObject& json, const JobView::Origin& origin) {
  char owner[40];
  std::snprintf(owner, sizeof owner, "%016llx%016llx",
                static_cast<unsigned long long>(origin.owner.hi),
                static_cast<unsigned long long>(origin.owner.lo));
  const bool nobodys = origin.owner == limit::Hash128{};
  json.text_or_null("tier", origin.tier)
      .number("priority", origin.priority)
      .text_or_null("owner", nobodys ? "" : owner);
  if (origin.priority == JobRecord::kReplayPriority) {
    json.boolean("replay", true);
  }
}

std::string result_url(const JobView& job) {
  return job.status != JobStatus::kCompleted
             ? ""
             : std::string(job.jobs_path) + "/" + std::string(job.id.view()) + "/result";
}

}  // namespace

std::optional<limit::Hash128> parse_owner(std::string_view digits) {
  constexpr size_t kHalf = 16;
  limit::Hash128 owner;
  const auto read = [](std::string_view half, uint64_t& number) {
    const char* const end = half.data() + half.size();
    return std::from_chars(half.data(), end, number, 16).ptr == end;
  };
  if (digits.size() != 2 * kHalf || !read(digits.substr(0, kHalf), owner.hi) ||
      !read(digits.substr(kHalf), owner.lo) || owner == limit::Hash128{}) {
    return std::nullopt;
  }
  return owner;
}

std::string_view name_of(JobStatus status) noexcept { return kNames[static_cast<size_t>(status)]; }

std::optional<JobStatus> status_named(std::string_view name) noexcept {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) {
      return static_cast<JobStatus>(i);
    }
  }
  return std::nullopt;
}

JobView view_of(const JobRecord& record) {
  return {.id = record.id,
          .status = record.status,
          .queue = record.queue,
          .model = record.model,
          .label = record.label,
          .trace_id = trace_id_in(record.trace),
          .jobs_path = record.jobs_path,
          .attempts = record.end.attempts,
          .created_ms = record.created_ms,
          .not_before_ms = has_ended(record.status) ? 0 : record.not_before_ms,
          .started_ms = record.end.started_ms,
          .finished_ms = record.end.finished_ms,
          .expires_ms = has_ended(record.status) ? record.end.expires_ms : 0,
          .error_code = has_ended(record.status) ? record.end.error_code : std::string_view(),
          .error = record.end.error,
          .told = record.told,
          .tells = record.tells};
}

JobView operator_view_of(const JobRecord& record) {
  JobView view = view_of(record);
  view.origin = {record.tier, record.priority, record.owner};
  return view;
}

std::string render(const std::optional<JobView::Range>& range) {
  return range ? "[" + std::to_string(range->soon) + "," + std::to_string(range->late) + "]"
               : "null";
}

std::string render(const JobView& job) {
  const bool queued = job.status == JobStatus::kQueued;
  JsonObject json;
  json.text("id", job.id.view())
      .text("object", "job")
      .text("status", name_of(job.status))
      .text("queue", job.queue)
      .raw("position", queued ? std::to_string(job.position) : "null")
      .raw("eta_seconds", job.eta_seconds ? std::to_string(*job.eta_seconds) : "null")
      .raw("eta_range", render(job.eta_range));
  if (!job.eta_reason.empty()) {
    json.text("eta_reason", job.eta_reason);
  }
  json.raw("progress", describe_progress(job))
      .number("attempts", job.attempts)
      .number("created_at", job.created_ms / kMsPerSec);
  if (job.not_before_ms != 0) {
    json.number("not_before", job.not_before_ms / kMsPerSec);
  }
  json.raw("started_at", seconds_or_null(job.started_ms))
      .raw("finished_at", seconds_or_null(job.finished_ms))
      .text_or_null("result_url", result_url(job))
      .raw("error", describe_error(job));
  if (job.moved) {
    json.raw("moved",
             JsonObject().number("from", job.moved->from).text("by", job.moved->by).done());
  }
  if (has_ended(job.status)) {
    // What failed of our own doing, and what came too late, is given back (SETTLED).
    const bool back = job.status == JobStatus::kFailed || job.status == JobStatus::kExpired;
    json.raw("expires_at", seconds_or_null(job.expires_ms)).boolean("counted", !back);
  }
  if (job.told != JobRecord::Told::kUnknown) {
    json.raw("webhook", JsonObject()
                            .text("status", kTold[static_cast<size_t>(job.told) - 1])
                            .number("tries", job.tells)
                            .done());
  }
  if (!job.model.empty() || job.origin) {
    json.text_or_null("model", job.model);
  }
  if (!job.label.empty()) {
    json.text("label", job.label);
  }
  if (!job.trace_id.empty()) {
    json.text("trace_id", job.trace_id);
  }
  if (job.origin) {
    add_origin(json, *job.origin);
  }
  return json.done();
}

std::string ending_json(const JobView& job, std::string_view event) {
  return JsonObject()
      .text("type", "job." + std::string(event))
      .text("timestamp", iso_time(job.finished_ms))
      .raw("data", render(job))
      .done();
}

}  // namespace penstock::queue
