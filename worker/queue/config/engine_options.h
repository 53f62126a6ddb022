// Keys of a worker that become options of its engine's command line.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "worker/queue/config/config.h"
#include "worker/queue/config/config_section.h"

namespace penstock::queue {

// Complains about each of these keys that is there, as they are for another engine.
void refuse_keys_of(const std::string& engine, std::initializer_list<const char*> keys,
                    Section& section, const WorkerConfig& worker);

// KEY becomes the option PREFIXKEY_ns; left out, it is the engine's own.
void add_duration(Section& section, const std::string& key, int64_t least_ns, WorkerConfig& worker,
                  const std::string& prefix = "");
void add_size(Section& section, const std::string& key, int64_t least, int64_t most,
              WorkerConfig& worker);

}  // namespace penstock::queue
