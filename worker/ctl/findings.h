// What was looked at, for people or as JSON, and the exit status it comes to.
#pragma once

#include <vector>

#include "worker/ctl/command.h"
#include "worker/queue/care/finding.h"

namespace penstock::ctl {

// 0: all is in order; 1: something is to be looked at; 2: something is wrong.
Outcome tell_findings(const Arguments& arguments, const std::vector<queue::Finding>& findings);

}  // namespace penstock::ctl
