// What an operator's hooks are told of a job's end.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "shared/wire/messages.h"
#include "worker/queue/jobs/job_view.h"
#include "worker/queue/text/jobs_path.h"
#include "worker/queue/text/json.h"
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
          seconds(job.finished_ms),
          {},
          {},
          {},
          {},
          {},
          {},
          {}};
}

// Of those that want such ends.
inline std::vector<Notice> notices_of(const Notices& hooks, JobView job, bool dead) {
  job.jobs_path = jobs_path_or_default({});
  return hooks.wanted() ? hooks.of(job.status, dead, fields_of(job, dead),
                                   ending_json(job, dead ? "dead" : name_of(job.status)))
                        : std::vector<Notice>();
}

// Of those that want to hear of quotas.
inline std::vector<Notice> notices_of(const Notices& hooks, const wire::QuotaNotice& quota,
                                      int64_t now_ms) {
  NoticeFields fields(std::size(kNoticeFields));
  fields[0] = "quota";
  const std::string of_quota[] = {std::string(quota.limit),    std::string(quota.key_hash),
                                  std::string(quota.unit),     std::to_string(quota.percent),
                                  std::to_string(quota.used),  std::to_string(quota.most),
                                  std::to_string(quota.ends_s)};
  std::copy(std::begin(of_quota), std::end(of_quota), fields.begin() + kFirstOfQuota);
  const auto number = [](uint64_t value) { return static_cast<int64_t>(value); };
  const std::string data = JsonObject()
                               .text("object", "quota")
                               .text("limit", quota.limit)
                               .text("key_hash", quota.key_hash)
                               .text("unit", quota.unit)
                               .text("period", quota.period)
                               .number("percent", number(quota.percent))
                               .number("used", number(quota.used))
                               .number("most", number(quota.most))
                               .number("began_at", number(quota.began_s))
                               .number("resets_at", number(quota.ends_s))
                               .done();
  return hooks.of_quota(fields, JsonObject()
                                    .text("type", "quota.reached")
                                    .number("timestamp", now_ms / 1000)
                                    .raw("data", data)
                                    .done());
}

}  // namespace penstock::queue
