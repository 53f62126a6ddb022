// What an operator's hooks are told of a job's end.
#pragma once

#include <string>
#include <vector>

#include "worker/queue/jobs/job_view.h"
#include "worker/queue/text/jobs_path.h"
#include "worker/queue/webhooks/notices.h"

namespace penstock::queue {

// As kNoticeFields has them.
inline NoticeFields fields_of(const JobView& job, bool dead) {
  const auto seconds = [](int64_t ms) { return ms == 0 ? "" : std::to_string(ms / 1000); };
  const std::string_view status = name_of(job.status);
  return {std::string(dead ? "dead" : status),
          std::string(job.id.view()),
          std::string(status),
          std::string(job.queue),
          std::string(job.model),
          std::string(job.label),
          std::string(job.error),
          std::string(job.error_code),
          std::to_string(job.attempts),
          seconds(job.created_ms),
          seconds(job.started_ms),
          seconds(job.finished_ms)};
}

// Of those that want such ends.
inline std::vector<Notice> notices_of(const Notices& hooks, JobView job, bool dead) {
  job.jobs_path = jobs_path_or_default({});
  return hooks.wanted() ? hooks.of(job.status, dead, fields_of(job, dead),
                                   ending_json(job, dead ? "dead" : name_of(job.status)))
                        : std::vector<Notice>();
}

}  // namespace penstock::queue
