// A configuration's files: the one that was named, and those that its `include` names, in the order
// of their names:
//
//     include: conf.d/*.yaml        # or a list of these
//
// They are joined by name: maps take each other's keys, `workers` and `notify` each other's items.
// What two of them say is a complaint of whoever reads it, which names both files and lines.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "shared/base/result.h"
#include "worker/queue/config/config_section.h"

namespace penstock::queue {

struct ConfigFile {
  std::string path;
  std::string text;
};

constexpr size_t kMaxConfigFiles = 256;

Error too_large(const std::string& path, size_t bytes);

// The file, and what it includes. What is relative is so to its folder. Errors name the file, and
// the line of `include`: what cannot be read, is too much, or matches nothing though it is no
// pattern.
Result<std::vector<ConfigFile>> read_config_files(const std::string& path);

// One tree of all of them, which `complaints` can tell apart. REQUIRES: at least one, the first of
// which includes the others. Throws YAML::Exception, its lines as `complaints` count them.
YAML::Node join(const std::vector<ConfigFile>& files, Complaints& complaints);

}  // namespace penstock::queue
