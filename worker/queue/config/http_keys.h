// The keys of workers of engine http. They become options of the worker's command line
// (worker/engines/http/options.h), but for two. Each url is a device of its own: so slots,
// placement and health are those of each url. Headers may be secret, so they go by the environment.
#pragma once

#include <string>

#include "worker/queue/config/config.h"
#include "worker/queue/config/config_section.h"

namespace penstock::queue {

// `file` is the configuration's, which paths are relative to. Other engines' keys of these names
// are complained about.
void read_http_keys(Section& section, const std::string& file, WorkerConfig& worker);

}  // namespace penstock::queue
