// `results` of penstock.yaml.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>

#include "worker/queue/config/config_section.h"
#include "worker/queue/config/results_config.h"

namespace penstock::queue {

ResultsConfig read_results(const YAML::Node& node, const std::string& file, Complaints& complaints);

}  // namespace penstock::queue
