// A command again and again, its answer live on the screen.
#pragma once

#include "worker/ctl/command.h"

namespace penstock::ctl {

// Runs it each second until q or Ctrl-C. Failed, if this is no terminal.
Outcome watch(const Command& command, const Arguments& arguments);

}  // namespace penstock::ctl
