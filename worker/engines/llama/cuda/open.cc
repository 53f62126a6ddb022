#include "worker/engines/llama/cuda/open.h"

#include <charconv>

#include "worker/engines/llama/cuda/runner.h"
#include "worker/engines/llama/cuda/self_test.h"

namespace penstock::llama::cuda {
namespace {

Result<DeviceInfo> use(const std::string& number) {
  int ordinal = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), ordinal);
  if (error != std::errc{} || end != number.data() + number.size() || ordinal < 0) {
    return Error{"\"" + number + "\" is no CUDA device's number"};
  }
  return use_device(ordinal);
}

}  // namespace

Status answers(const std::string& number) {
  const auto device = use(number);
  return device ? Status(Ok{}) : Status(device.error());
}

Status works(const std::string& number) {
  const auto device = use(number);
  const Status tested = device ? self_test(device->number)
                               : Status(Error{"device " + number + ": " + device.error().message});
  return tested || tested.error().kind == ErrorKind::kBusy ? Status(Ok{}) : tested;
}

Result<std::unique_ptr<Runner>> open_runner(const RunnerOptions& options) {
  const auto device = use(options.device == "auto" ? "0" : options.device);
  if (!device) {
    return device.error();
  }
  const auto files = load_model(options.model_dir);
  if (!files) {
    return files.error();
  }
  auto library = open_cublaslt();
  if (!library && options.log) {
    options.log(library.error().message);
  }
  auto runner = CudaRunner::make(*files, *device, library ? std::move(*library) : nullptr,
                                 {.memory_bytes = options.memory_bytes,
                                  .max_parts = options.max_parts,
                                  .prefill_tokens = options.prefill_tokens,
                                  .high_priority = options.high_priority,
                                  .sleeps = options.sleeps});
  if (!runner) {
    return Error{"device " + std::to_string(device->number) + " (" + device->name +
                 "): " + runner.error().message};
  }
  if (options.log && !(*runner)->slow().empty()) {
    options.log((*runner)->slow());
  }
  return std::unique_ptr<Runner>(std::move(*runner));
}

}  // namespace penstock::llama::cuda
