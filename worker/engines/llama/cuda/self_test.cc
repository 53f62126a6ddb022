#include "worker/engines/llama/cuda/self_test.h"

#include <cstddef>
#include <string>

#include "worker/engines/llama/cuda/kernels.h"
#include "worker/engines/llama/cuda/runtime.h"

namespace penstock::llama::cuda {

Status self_test(int number) {
  const std::string name = "device " + std::to_string(number);
  constexpr int32_t kRows = 1024;
  constexpr int64_t kTableBytes = kRows * static_cast<int64_t>(sizeof(float));
  auto host = allocate_pinned(3 * kTableBytes);
  auto device = allocate_on_device(3 * kTableBytes);
  auto stream = make_stream(true);
  for (const Error* error : {host ? nullptr : &host.error(), device ? nullptr : &device.error(),
                             stream ? nullptr : &stream.error()}) {
    if (error != nullptr) {
      return Error{name + ": " + error->message, error->kind};
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
    return Error{name + ": " + done.error().message, done.error().kind};
  }
  for (int32_t row = 0; row < kRows; ++row) {
    if (found[row] != table[tokens[row]]) {
      return Error{name + " computes wrong numbers: row " + std::to_string(row) + " is " +
                   std::to_string(found[row]) + ", and should be " +
                   std::to_string(table[tokens[row]])};
    }
  }
  return Ok{};
}

}  // namespace penstock::llama::cuda
