// How a model is loaded, and on which device.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace penstock::llama {

struct RunnerOptions {
  std::string model_dir;
  // "auto": the first CUDA device that answers, else the CPU; "cpu"; or a CUDA device's number,
  // refused where it does not answer.
  std::string device = "auto";
  int64_t memory_bytes = 0;    // of the key-value cache; 0: 1 GiB on the CPU, what is free on a GPU
  int threads = 0;             // on the CPU; 0: as many as there are cores
  int64_t max_parts = 256;     // sequences in one step, on a GPU
  int64_t prefill_tokens = 0;  // prompt tokens per step; 0: 256 on the CPU, 512 on a GPU
  bool high_priority = true;   // of two engines in one MPS, the one whose kernels go first
  bool sleeps = false;         // its thread, while a GPU works
  std::function<void(const std::string&)> log;  // lines for the operator; may be empty
};

}  // namespace penstock::llama
