// `notify` of penstock.yaml: a list of hooks, each a program or an URL.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "worker/queue/config/config_section.h"
#include "worker/queue/config/notify_config.h"

namespace penstock::queue {

std::vector<HookConfig> read_notify(const YAML::Node& node, const std::string& file,
                                    Complaints& complaints);

}  // namespace penstock::queue
