// What runs beside what lies on disk, and parts of different Penstocks beside each other.
#pragma once

#include <vector>

#include "worker/ctl/json.h"
#include "worker/queue/care/finding.h"
#include "worker/queue/config/redis_config.h"

namespace penstock::ctl {

// `status` as penstockd tells it. Of processes that this user may not look at nothing is said.
void look_at_versions(JsonElement status, std::vector<queue::Finding>& findings);

// Which SQLite this is, and which Redis answers, where it can be asked plainly: neither by TLS, nor
// one whose password this user may not read.
void look_at_stores(const queue::RedisConfig& redis, std::vector<queue::Finding>& findings);

}  // namespace penstock::ctl
