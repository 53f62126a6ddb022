// The command line and the environment of a worker, from its configuration.
#pragma once

#include <string>
#include <vector>

#include "shared/base/result.h"
#include "worker/queue/config/config.h"

namespace penstock::queue {

// argv, program first.
std::vector<std::string> worker_command(const std::string& binary, const WorkerConfig& worker,
                                        const LimitsConfig& limits, const LogSettings& log = {});

// What a placed process has in its environment beside ours: what its programs are to have in
// theirs, behind a prefix, and which device it sees, and sees as number 0. Where our own
// CUDA_VISIBLE_DEVICES says which there are, numbers count those. An Error: it has none of that
// number.
// https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables
Result<std::vector<std::string>> worker_environment(const WorkerConfig& worker);

// penstock-worker in the folder this program lies in.
std::string binary_beside_this(const std::string& name);

}  // namespace penstock::queue
