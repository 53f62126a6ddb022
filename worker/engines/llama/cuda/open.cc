#include "worker/engines/llama/cuda/open.h"

#include <charconv>

#include "worker/engines/llama/cuda/kernels.h"
#include "worker/engines/llama/cuda/runner.h"
#include "worker/engines/llama/cuda/runtime.h"

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
  constexpr int32_t kRows = 1024;
  constexpr int64_t kTableBytes = kRows * static_cast<int64_t>(sizeof(float));
  auto host = allocate_pinned(3 * kTableBytes);
  auto device = allocate_on_device(3 * kTableBytes);
  auto stream = make_stream(true);
  for (const Error* error : {host ? nullptr : &host.error(), device ? nullptr : &device.error(),
                             stream ? nullptr : &stream.error()}) {
    if (error != nullptr) {
      return Error{"device " + number + ": " + error->message};
    }
  }
  // A table of numbers, looked up from its end to its beginning.
  auto* const table = reinterpret_cast<float*>(host->get());
  auto* const tokens = reinterpret_cast<int32_t*>(host->get() + kTableBytes);
  auto* const found = reinterpret_cast<float*>(host->get() + 2 * kTableBytes);
  for (int32_t row = 0; row < kRows; ++row) {
    table[row] = static_cast<float>(row) + 0.5F;
    tokens[row] = kRows - 1 - row;
    found[row] = -1;
  }
  std::byte* const at = device->get();
  Status done = copy_to_device(stream->get(), at, host->get(), 2 * kTableBytes);
  if (done) {
    embed(stream->get(), reinterpret_cast<float*>(at + 2 * kTableBytes),
          {.data = at, .dtype = DType::kF32, .rows = kRows, .cols = 1},
          reinterpret_cast<const int32_t*>(at + kTableBytes), kRows);
    done = launched();
  }
  if (done) {
    done = copy_to_host(stream->get(), host->get() + 2 * kTableBytes, at + 2 * kTableBytes,
                        kTableBytes);
  }
  if (done) {
    done = wait(stream->get());
  }
  if (!done) {
    return Error{"device " + number + ": " + done.error().message};
  }
  for (int32_t row = 0; row < kRows; ++row) {
    if (found[row] != table[tokens[row]]) {
      return Error{"device " + number + " computes wrong numbers: row " + std::to_string(row) +
                   " is " + std::to_string(found[row]) + ", and should be " +
                   std::to_string(table[tokens[row]])};
    }
  }
  return Ok{};
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
    options.log(library.error().message + "; prompts will be read slowly");
  }
  auto runner = CudaRunner::make(*files, *device, library ? std::move(*library) : nullptr,
                                 {.memory_bytes = options.memory_bytes,
                                  .max_parts = options.max_parts,
                                  .prefill_tokens = options.prefill_tokens,
                                  .high_priority = options.high_priority});
  if (!runner) {
    return Error{"device " + std::to_string(device->number) + " (" + device->name +
                 "): " + runner.error().message};
  }
  return std::unique_ptr<Runner>(std::move(*runner));
}

}  // namespace penstock::llama::cuda
