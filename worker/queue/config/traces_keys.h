// Reads `traces`.
#pragma once

#include "worker/queue/config/config_section.h"
#include "worker/queue/config/traces_config.h"

namespace penstock::queue {

// traces: { url: "http://127.0.0.1:4318/v1/traces", sample: parent | 0.01 }
TracesConfig read_traces(const YAML::Node& node, Complaints& complaints);

}  // namespace penstock::queue
