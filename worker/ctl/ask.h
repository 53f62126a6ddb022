// One question to a running penstockd over its socket.
#pragma once

#include <string>

#include "shared/base/result.h"

namespace penstock::ctl {

// Asks how everything is (STATUS) and returns the JSON of the answer. Waits at most a few seconds.
Result<std::string> ask_status(const std::string& socket);

// The socket that a penstock.yaml names.
Result<std::string> socket_of(const std::string& config_path);

}  // namespace penstock::ctl
