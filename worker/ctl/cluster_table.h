// All hosts that share queues, for people: /cluster as text.
#pragma once

#include <string>

#include "shared/base/result.h"

namespace penstock::ctl {

Result<std::string> cluster_table(const std::string& json);

}  // namespace penstock::ctl
