// Every CUDA kernel against its reference, on random inputs of odd shapes.
//
// The reference is reference_backend() (ops.h), or sampler.h. Outputs are NaN before, with a guard
// behind them. The same checks run on a GPU (scripts/gpu-check) and, with smaller shapes, on an
// emulated one (cuda_emulation.h), so they know neither GoogleTest nor CUDA.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace penstock::llama::cuda {

struct CheckResult {
  std::string name;
  int64_t numbers = 0;   // compared
  double worst = 0;      // |got - expected| / max(1, |expected|)
  double tolerance = 0;  // ... allowed
  std::string failure;   // empty: passed

  bool passed() const { return failure.empty() && worst <= tolerance && numbers > 0; }
};

// The checks there are.
std::vector<std::string> kernel_check_names();

// One of them, or all if `name` is empty. `large` adds the shapes of real models: the references
// then take seconds on the CPU, a minute for attention. REQUIRES: a device is in use on this
// thread.
std::vector<CheckResult> run_kernel_checks(bool large, unsigned seed, const std::string& name = "");

}  // namespace penstock::llama::cuda
