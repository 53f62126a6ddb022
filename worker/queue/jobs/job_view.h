// JobView: a job as its owner sees it (CONTRACT, section 4), and its JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "worker/queue/store/job_record.h"

namespace penstock::queue {

struct JobView {
  JobId id;
  JobStatus status = JobStatus::kQueued;
  std::string_view queue;
  std::string_view model;     // empty: any
  std::string_view label;     // its owner's words for it; empty: none
  std::string_view trace_id;  // of the trace that it belongs to; empty: none
  std::string_view jobs_path;
  uint32_t position = 0;        // while kQueued: 1 is the next to start
  uint32_t ahead_by_class = 0;  // of those before it
  // Others went ahead since its owner was told last: where it stood, and whether they did so by
  // their "class" or by their fair "share".
  struct Moved {
    uint32_t from = 0;
    std::string_view by;
  };
  std::optional<Moved> moved;
  std::optional<int64_t> eta_seconds;  // until it starts; while kProcessing: until it is done
  struct Range {
    int64_t soon = 0;
    int64_t late = 0;
  };
  std::optional<Range> eta_range;  // in seconds: between these, four times of five
  std::string_view eta_reason;  // why nobody knows: "loading", "paused", "no_worker", "learning";
                                // or empty
  std::optional<double> progress;  // 0 to 1
  uint32_t step = 0;               // of so many; 0: not known
  uint32_t steps = 0;
  uint32_t attempts = 0;
  int64_t created_ms = 0;
  int64_t not_before_ms = 0;  // while kScheduled
  int64_t started_ms = 0;
  int64_t finished_ms = 0;
  int64_t expires_ms = 0;  // its result is kept until then
  std::string_view error_code;
  std::string_view error;
  JobRecord::Told told = JobRecord::Told::kUnknown;  // of its webhook
  uint32_t tells = 0;
  // What only the operator sees.
  struct Origin {
    std::string_view tier;
    int64_t priority = 0;
    limit::Hash128 owner;  // {}: nobody's
  };
  std::optional<Origin> origin;
};

JobView view_of(const JobRecord& record);
// The same, with its origin.
JobView operator_view_of(const JobRecord& record);

// An owner as operators are shown one: 32 hexadecimal digits, the same as a job's `owner`.
std::optional<limit::Hash128> parse_owner(std::string_view digits);

// One JSON object.
std::string render(const JobView& job);
// Of the same: "[30,70]", or "null".
std::string render(const std::optional<JobView::Range>& range);

// What webhooks and notices say of a job's end: {"type":"job.EVENT","timestamp":...,"data":{job}}.
std::string ending_json(const JobView& job, std::string_view event);

std::string_view name_of(JobStatus status) noexcept;
std::optional<JobStatus> status_named(std::string_view name) noexcept;

}  // namespace penstock::queue
