// The command line of a worker, from its configuration; and the process, from the command line.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "worker/queue/config.h"

namespace penstock::queue {

// argv, program first.
std::vector<std::string> worker_command(const std::string& binary, const WorkerConfig& worker,
                                        const LimitsConfig& limits);

// penstock-worker in the folder this program lies in.
std::string binary_beside_this(const std::string& name);

struct Spawned {
  pid_t pid;
  Fd socket;  // our end of the pair, non-blocking
};
// Starts the program with the other end as descriptor 3, no other descriptor of ours but stderr,
// no signal blocked, and a process group of its own, so that a terminal's Ctrl-C reaches it through
// penstockd only.
Result<Spawned> spawn_worker(const std::vector<std::string>& command);

}  // namespace penstock::queue
