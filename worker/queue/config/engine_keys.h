// The keys of workers that belong to one engine, and which engines there are.
//
// A new engine gets its name here, and one function for its keys in engine_keys.cc: they are
// checked and become `options`, NAME=VALUE on the worker's command line (worker/pool/options.h).
#pragma once

#include "worker/queue/config/config.h"
#include "worker/queue/config/config_section.h"

namespace penstock::queue {

// Reads `engine:`. Call it before the others.
void read_engine(Section& section, WorkerConfig& worker);
// Reads the keys that only some engines have, and complains about those of another engine. `file`
// is the configuration's; paths are relative to it.
void read_engine_keys(Section& section, const std::string& file, WorkerConfig& worker);

}  // namespace penstock::queue
