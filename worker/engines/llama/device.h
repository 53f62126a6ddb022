// Which device a model runs on.
#pragma once

#include <memory>
#include <string>

#include "worker/engines/llama/runner.h"
#include "worker/engines/llama/runner_options.h"

namespace penstock::llama {

// Loads the model there. Says in one line of the log where that is, and why if it is not a GPU.
Result<std::unique_ptr<Runner>> open_runner(const RunnerOptions& options);

// Whether that device is there and computes what it should. Of "auto", if a GPU answers: whether
// that does.
Status check_device(const std::string& device);

}  // namespace penstock::llama
