// `challenges` of penstock.yaml: { turnstile: { secret_file: …, hostnames: [example.com] } }.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "worker/queue/config/config_section.h"
#include "worker/queue/config/provider_config.h"

namespace penstock::queue {

std::vector<ProviderConfig> read_providers(const YAML::Node& node, const std::string& file,
                                           Complaints& complaints);

}  // namespace penstock::queue
