// The table that gpu_check prints, `| what | measured | goal | ok |`, and how it ends.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "tests/gpu/flat_model.h"
#include "worker/engines/llama/cuda/runner.h"

namespace penstock::llama {

// A row whose goal was not reached makes the exit status 1.
void row(const std::string& what, const std::string& measured, const std::string& goal, bool ok);

template <typename... Args>
std::string text(const char* format, Args... args) {
  char buffer[512];
  std::snprintf(buffer, sizeof buffer, format, args...);
  return buffer;
}

// Says why on stderr and ends with status 4: the check could not be made.
[[noreturn]] void give_up(const Error& error);

template <typename T>
T must(Result<T> result) {
  if (!result) {
    give_up(result.error());
  }
  return std::move(*result);
}

// The runner that serves, but for `options`. Says on stderr if there is no cuBLASLt.
std::unique_ptr<cuda::CudaRunner> open(const FlatModel& model, const cuda::DeviceInfo& device,
                                       const cuda::CudaOptions& options);

}  // namespace penstock::llama
