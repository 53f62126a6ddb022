// Why a job of a program has failed, in the words its caller will read.
//
// Callers do not learn what only the operator may know (paths, exit statuses, the program's own
// standard error); that is in the log.
#pragma once

#include <string>
#include <string_view>

#include "worker/pool/engine.h"

namespace penstock::process {

// The program's own error. Codes of the contract have their status there; any other is 502.
Failure refusal(std::string_view code, std::string_view message, std::string_view param,
                bool retryable);
// It broke a rule: another attempt would break it again.
Failure broken_rule(std::string message);
// This attempt is lost; the next may do.
Failure lost_attempt(std::string message);
// No program is there to run it: no attempt.
Failure not_now();

}  // namespace penstock::process
