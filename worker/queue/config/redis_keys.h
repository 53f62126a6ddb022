// `redis` of penstock.yaml.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>

#include "shared/base/result.h"
#include "worker/queue/config/config_section.h"
#include "worker/queue/config/redis_config.h"

namespace penstock::queue {

// `open`: the file of the password is looked at, too.
RedisConfig read_redis(const YAML::Node& node, const std::string& file, bool open,
                       Complaints& complaints);

// What the file holds; empty where none is named.
Result<std::string> read_password(const RedisConfig& redis);

}  // namespace penstock::queue
