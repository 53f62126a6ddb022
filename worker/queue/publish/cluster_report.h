// What a host knows of all hosts that share its queues: the JSON that `penstockctl status
// --cluster` shows.
#pragma once

#include <string>

#include "worker/queue/jobs/dispatcher.h"

namespace penstock::queue {

// {"redis":{"reached":…,"at":…,"why":…|null}|null,
//  "queues":[{"name":…,"paused":…,"waiting":…,"scheduled":…,"running":…,"oldest_seconds":…,
//    "heard_ms":…,"renewed_ms":…|null,"lag_ms":…,"unsent":…,"reaped":…,
//    "acknowledged":…,"other_layouts":[…],
//    "models":[{"model":…,"waiting":…,"workers":…,"ready":…,"slots":…,"running":…,
//      "service_ms":…|null,"predicted_wait_ms":…|null}]}],
//  "hosts":[{"name":…,"role":"edge"|"worker","state":"serving"|"draining","version":…,"since":…,
//    "up_seconds":…,"heard_ms":…,"unsent":…,
//    "queues":[{"queue":…,"lease":…|null,"lease_ms":…|null,"running":…,
//      "models":[{"model":…,"workers":…,"ready":…,"slots":…,"running":…,"service_ms":…|null}]}]}],
//  "gone":[{"name":…,"version":…,"end":"left"|"lost","seconds":…}]}
// `redis` null: no queue is shared. What was heard last: `heard_ms` ago.
std::string report_cluster(const Dispatcher& dispatcher);

}  // namespace penstock::queue
