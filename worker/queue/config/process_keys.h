// The keys of engine process (docs/PROCESS_PROTOCOL.md): its program, and what bounds it.
#pragma once

#include <string>

#include "worker/queue/config/config.h"
#include "worker/queue/config/config_section.h"

namespace penstock::queue {

// They become the worker's options and environment. These are also complained about: a program that
// is not there or may not be executed, a user who is not known or whom we may not become, and any
// of these keys if the worker has another engine. `file` is the configuration's: a word of the
// command that names a file beside it means that file.
void read_process_keys(Section& section, const std::string& file, WorkerConfig& worker);

}  // namespace penstock::queue
