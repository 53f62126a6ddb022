// penstockd's status for people: one screen of tables.
#pragma once

#include <string>

#include "shared/base/result.h"

namespace penstock::ctl {

// `json` is the body of a STATUS answer; members it lacks are shown as "-".
Result<std::string> status_table(const std::string& json);

}  // namespace penstock::ctl
