// The door of the CUDA engine, for device.cc.
#pragma once

#include <memory>
#include <string>

#include "shared/base/result.h"
#include "worker/engines/llama/runner.h"
#include "worker/engines/llama/runner_options.h"

namespace penstock::llama::cuda {

// Whether CUDA device `number` can be used; the Error says why not.
Status answers(const std::string& number);

// Whether it answers and computes what it should (self_test.h). One whose memory others have taken
// cannot be asked and is not at fault: opening a model there says what is missing.
Status works(const std::string& number);

// Loads the model there. REQUIRES: answers() said so on this thread; options.device is that number,
// or "auto" for 0.
Result<std::unique_ptr<Runner>> open_runner(const RunnerOptions& options);

}  // namespace penstock::llama::cuda
