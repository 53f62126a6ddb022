// What the console says of limits, for people. The JSON is the console's, valid or not; members it
// lacks are shown as "-".
#pragma once

#include <string>

#include "shared/base/result.h"

namespace penstock::ctl {

// {"key":"9f3a…","limits":[{"zone":…,"name":…,"unit":…,"algorithm":…,"limit":…,"burst":…,"used":…,
// "remaining":…,"reset_seconds":…,"live":true}, …]}. Counters at rest are left out unless `all`.
Result<std::string> limits_table(const std::string& json, bool all);

// {"key":"9f3a…","reset":["free-rate", …]}
Result<std::string> reset_line(const std::string& json);

// {"offenders":[{"key":"9f3a…","limit":"free-rate","refused":1234}, …]}
Result<std::string> offenders_table(const std::string& json);

}  // namespace penstock::ctl
