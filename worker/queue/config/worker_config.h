// Workers and devices in penstock.yaml.
#pragma once

#include <string>
#include <vector>

#include "worker/queue/config/config.h"
#include "worker/queue/config/config_section.h"

namespace penstock::queue {

// `workers:` of the file at that path, into `config`, whose queues have been read.
void read_workers(const YAML::Node& node, const std::string& file, Config& config,
                  Complaints& complaints);
std::vector<DeviceConfig> read_devices(const YAML::Node& node, Complaints& complaints);

}  // namespace penstock::queue
