// The keys of engine process (docs/PROCESS_PROTOCOL.md): its program, and what bounds it.
#pragma once

#include <string>

#include "worker/queue/config/config.h"
#include "worker/queue/config/config_section.h"

namespace penstock::queue {

// They become the worker's options and environment. Complained about are also: a program that is
// not there or may not be executed, a user whom nobody knows or whom we may not become, and any of
// these keys where the worker has another engine. `file` is the configuration's: words of the
// command that name a file beside it mean that file.
void read_process_keys(Section& section, const std::string& file, WorkerConfig& worker);

}  // namespace penstock::queue
