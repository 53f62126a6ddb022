// The command line of a worker, from its configuration; and the process, from the command line.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "worker/queue/config/config.h"

namespace penstock::queue {

// argv, program first.
std::vector<std::string> worker_command(const std::string& binary, const WorkerConfig& worker,
                                        const LimitsConfig& limits);

// What a placed process has in its environment beside ours: what its programs are to have in
// theirs, behind a prefix, and which device it sees, and sees as number 0. Where our own
// CUDA_VISIBLE_DEVICES says which there are, numbers count those. An Error: it has none of that
// number.
// https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables
Result<std::vector<std::string>> worker_environment(const WorkerConfig& worker);

// penstock-worker in the folder this program lies in.
std::string binary_beside_this(const std::string& name);

struct Spawned {
  pid_t pid;
  Fd socket;  // our end of the pair, non-blocking
};
// Starts the program with the other end as descriptor 3, `lock`, if it is one, as descriptor 4, no
// other descriptor of ours but stderr, no signal blocked, and a process group of its own, so that a
// terminal's Ctrl-C reaches it through penstockd only. `environment`: "NAME=value", in place of
// ours of the same name.
Result<Spawned> spawn_worker(const std::vector<std::string>& command,
                             const std::vector<std::string>& environment = {}, int lock = -1);

}  // namespace penstock::queue
