// How fast the engine is on this device: whole steps, beside what memory allows, and each kernel.
#pragma once

#include <span>
#include <string>

#include "worker/engines/llama/cuda/runtime.h"

namespace penstock::llama {

// `which` is 1b or 8b (flat_model.h's shapes), or a flat file. Of `words`, KEY=VALUE are settings:
// context=128 (tokens before the first step), top_p=1, graphs=on; each other is a batch. One row a
// batch: tokens a second, the median of three rounds.
void measure_decode(const std::string& which, std::span<char*> words,
                    const cuda::DeviceInfo& device);

// One row a length: tokens a second of reading a prompt of so many, alone, and the time to its
// first token.
void measure_prompts(const std::string& which, std::span<char*> lengths,
                     const cuda::DeviceInfo& device);

// Decoding beside the reading of a long prompt: the longest step that the decoding rows wait for.
void measure_mixed(const std::string& which, const cuda::DeviceInfo& device);

// One row a kernel and a number of rows, with the microseconds of a launch and the bytes a second
// of what it must read (kernels.h).
void measure_kernels(const std::string& which, std::span<char*> rows,
                     const cuda::DeviceInfo& device);

}  // namespace penstock::llama
