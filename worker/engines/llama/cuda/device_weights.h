// A model's weights in a GPU's memory.
//
// What is multiplied with the same input lies together, so that it is one product: query, key and
// value; gate and up. Matrices keep their dtype (one for each such group: F32 if the file mixes
// them); norms and biases, which are small, become F32.
#pragma once

#include <cstdint>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/cuda/kernels.h"
#include "worker/engines/llama/cuda/runtime.h"
#include "worker/engines/llama/weights.h"

namespace penstock::llama::cuda {

struct DeviceLayer {
  const float* attention_norm = nullptr;
  Matrix qkv;
  const float* qkv_bias = nullptr;
  Matrix output;
  const float* output_bias = nullptr;
  const float* mlp_norm = nullptr;
  Matrix gate_up;
  const float* gate_up_bias = nullptr;
  Matrix down;
  const float* down_bias = nullptr;
};

struct DeviceWeights {
  Matrix embedding;
  Matrix logits;  // the embedding if tied
  const float* norm = nullptr;
  const float* frequencies = nullptr;  // rope.h
  std::vector<DeviceLayer> layers;

  int64_t bytes = 0;
  DeviceMemory memory;  // what all of it points into
};

// Copies them there; the host's are not needed afterwards. An Error says how much memory there
// would have to be.
Result<DeviceWeights> upload(const ModelFiles& files);

}  // namespace penstock::llama::cuda
