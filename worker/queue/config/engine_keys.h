// The keys of workers that belong to one engine, and which engines there are.
//
// A new engine gets its name here, and one function for its keys in engine_keys.cc: they are
// checked and become `options`, NAME=VALUE on the worker's command line (worker/pool/options.h).
#pragma once

#include "worker/queue/config/config.h"
#include "worker/queue/config/config_section.h"

namespace penstock::queue {

// `engine:`. Before the others.
void read_engine(Section& section, WorkerConfig& worker);
// What only some engines have; another engine's are complained about. `file` is the
// configuration's, which paths are relative to.
void read_engine_keys(Section& section, const std::string& file, WorkerConfig& worker);

}  // namespace penstock::queue
