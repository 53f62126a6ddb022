// The model's weights, found by name in one model.safetensors or in the shards
// model.safetensors.index.json lists, and checked against the config before anything is computed.
//
// They stay in their stored format where the file is mapped: decoding reads every weight once per
// token and is bound by memory bandwidth, so BF16 read as BF16 takes half the time of a copy in
// F32. Only a tensor that happens not to be aligned to its element size (old files) is copied.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/config.h"
#include "worker/engines/llama/tensor.h"

namespace penstock::llama {

class Safetensors;

// One transformer block. Matrices are [outputs, inputs]; biases are empty where the config has
// none.
struct LayerWeights {
  ConstTensor attention_norm;     // [1, hidden]
  ConstTensor query, key, value;  // [heads or kv_heads * head_dim, hidden]
  ConstTensor query_bias, key_bias, value_bias;
  ConstTensor output;  // [hidden, heads * head_dim]
  ConstTensor output_bias;
  ConstTensor mlp_norm;  // [1, hidden]
  ConstTensor gate, up;  // [intermediate, hidden]
  ConstTensor gate_bias, up_bias;
  ConstTensor down;  // [hidden, intermediate]
  ConstTensor down_bias;
};

struct Weights {
  ConstTensor embedding;  // [vocabulary, hidden]
  ConstTensor norm;       // [1, hidden]
  ConstTensor logits;     // [vocabulary, hidden]; the embedding if tied
  std::vector<LayerWeights> layers;

  // What the tensors point into.
  std::vector<std::shared_ptr<const Safetensors>> files;
  std::deque<std::vector<std::byte>> copies;
};

// Errors name the file and the tensor.
Result<Weights> load_weights(const std::string& folder, const ModelConfig& config);

// A model folder, read and checked.
struct ModelFiles {
  ModelConfig config;
  Weights weights;
};
Result<ModelFiles> load_model(const std::string& folder);

}  // namespace penstock::llama
