// `notify` of penstock.yaml: a list of hooks, each a program or an URL.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "worker/queue/config/config_section.h"
#include "worker/queue/config/load_config.h"
#include "worker/queue/config/notify_config.h"

namespace penstock::queue {

// Keys are read from their files, unless `files` are only named.
std::vector<HookConfig> read_notify(const YAML::Node& node, const std::string& file,
                                    NamedFiles files, Complaints& complaints);

}  // namespace penstock::queue
