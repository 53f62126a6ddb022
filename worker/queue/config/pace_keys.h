// The keys of a worker that bound how fast what is behind it is used: limit, quota, concurrency,
// limit_key.
#pragma once

#include "worker/queue/config/config.h"
#include "worker/queue/config/config_section.h"

namespace penstock::queue {

// The limits are the key's, which is the worker's name if it gives none. Of several workers with
// one key, one at least says them, and none says others.
void read_pace(Section& section, WorkerConfig& worker, Config& config);
// nullptr: there is none.
const PaceConfig* find_pace(const Config& config, const std::string& key);

}  // namespace penstock::queue
