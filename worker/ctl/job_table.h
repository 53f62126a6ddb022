// Jobs for people. The JSON is penstockd's answers to a tool (worker/queue/api/operator_api.h);
// members it lacks are shown as "-".
#pragma once

#include <cstdint>
#include <string>

#include "shared/base/result.h"

namespace penstock::ctl {

// {"data":[{job}, …],"has_more":…,"last_id":…}. `now_s`: since 1970.
Result<std::string> jobs_table(const std::string& json, int64_t now_s);
// The same of dead letters: what they failed of.
Result<std::string> dead_table(const std::string& json, int64_t now_s);
// One job, a line for each thing known of it; of a dead letter the request, too.
Result<std::string> job_lines(const std::string& json);

}  // namespace penstock::ctl
