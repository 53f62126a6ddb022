#include "worker/engines/llama/device.h"

#include <algorithm>
#include <thread>

#include "worker/engines/llama/cpu_runner.h"
#if PENSTOCK_WITH_CUDA
#include "worker/engines/llama/cuda/open.h"
#endif

namespace penstock::llama {
namespace {

constexpr int64_t kDefaultCacheBytes = int64_t{1} << 30;  // pages are committed as they are used
constexpr int64_t kDefaultPrefillTokens = 256;

Result<std::unique_ptr<Runner>> open_on_cpu(const RunnerOptions& options) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return open_cpu_runner(
      options.model_dir, cpu_backend(options.threads > 0 ? options.threads : std::max(cores, 1)),
      options.memory_bytes > 0 ? options.memory_bytes : kDefaultCacheBytes,
      options.prefill_tokens > 0 ? options.prefill_tokens : kDefaultPrefillTokens);
}

#if PENSTOCK_WITH_CUDA
Status cuda_answers(const std::string& device) {
  return cuda::answers(device == "auto" ? "0" : device);
}
Status cuda_works(const std::string& device) {
  return cuda::works(device == "auto" ? "0" : device);
}
Result<std::unique_ptr<Runner>> open_on_cuda(const RunnerOptions& options) {
  return cuda::open_runner(options);
}
#else
Status cuda_answers(const std::string&) { return Error{"this worker was built without CUDA"}; }
Status cuda_works(const std::string& device) {
  return Error{"device " + device + ": this worker was built without CUDA"};
}
Result<std::unique_ptr<Runner>> open_on_cuda(const RunnerOptions&) {
  return Error{"this worker was built without CUDA"};
}
#endif

}  // namespace

Result<std::unique_ptr<Runner>> open_runner(const RunnerOptions& options) {
  std::string why = "as told";
  if (options.device != "cpu") {
    const Status answer = cuda_answers(options.device);
    if (!answer && options.device != "auto") {
      return Error{"device " + options.device + ": " + answer.error().message +
                   "; name another, or `cpu`, or `auto` to take the CPU where no GPU answers"};
    }
    if (answer) {
      auto runner = open_on_cuda(options);
      if (runner && options.log) {
        options.log(std::string("llama runs on ") + (*runner)->name());
      }
      return runner;
    }
    why = answer.error().message;
  }
  auto runner = open_on_cpu(options);
  if (runner && options.log) {
    options.log(std::string("llama runs on the CPU (") + (*runner)->name() + "): " + why);
  }
  return runner;
}

Status check_device(const std::string& device) {
  if (device == "cpu" || (device == "auto" && !cuda_answers(device))) {
    return Ok{};
  }
  return cuda_works(device);
}

}  // namespace penstock::llama
