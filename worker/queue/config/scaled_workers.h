// The configured workers as their processes: one entry for each, as Scaling counts and names them.
#pragma once

#include <vector>

#include "worker/queue/bound/scaling.h"
#include "worker/queue/config/config.h"

namespace penstock::queue {

// What Scaling has to know of a worker.
Scaling::Worker scaling_of(const WorkerConfig& worker);
std::vector<WorkerConfig> scaled_workers(const std::vector<WorkerConfig>& workers,
                                         Scaling& scaling);

}  // namespace penstock::queue
