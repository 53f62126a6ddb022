// The model on a Backend (ops.h) whose memory the host can read: forward, then the sampler.
#pragma once

#include <memory>
#include <string>

#include "worker/engines/llama/ops.h"
#include "worker/engines/llama/runner.h"

namespace penstock::llama {

// `memory_bytes` is the cache's; `prefill_tokens` at least 1.
Result<std::unique_ptr<Runner>> open_cpu_runner(const std::string& folder,
                                                std::unique_ptr<Backend> backend,
                                                int64_t memory_bytes, int64_t prefill_tokens);

}  // namespace penstock::llama
