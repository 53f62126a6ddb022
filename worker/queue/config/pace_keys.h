// The keys of a worker that bound how fast the server behind it is used: limit, quota, concurrency,
// limit_key.
#pragma once

#include "worker/queue/config/config.h"
#include "worker/queue/config/config_section.h"

namespace penstock::queue {

// The limits belong to the limit_key, which is the worker's name if it gives none. At least one of
// the workers with one key says the limits, and no other worker may say different ones.
void read_pace(Section& section, WorkerConfig& worker, Config& config);
// nullptr: there is none.
const PaceConfig* find_pace(const Config& config, const std::string& key);

}  // namespace penstock::queue
