// config.json of a Hugging Face model folder: the numbers that make the model's shape.
//
// Taken: model_type "llama", "mistral" (without a sliding window) and "qwen2" (the same model with
// biases on q, k and v), hidden_act "silu". Everything is checked here once, so that nothing after
// needs to doubt it: sizes are within sane bounds, products of them cannot overflow, and kv_heads
// divides heads. What would change the numbers and is not implemented is refused, never ignored.
//
// Source: Hugging Face transformers, LlamaConfig and modeling_rope_utils ("linear" and "llama3"
// scaling).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shared/base/result.h"

namespace penstock::llama {

struct RopeScaling {
  enum class Kind { kNone, kLinear, kLlama3 };
  Kind kind = Kind::kNone;
  double factor = 1;
  double low_freq_factor = 1;  // llama3 only, as are those below
  double high_freq_factor = 4;
  double original_max_positions = 8192;
};

struct ModelConfig {
  int64_t hidden = 0;        // width of a token's activations
  int64_t intermediate = 0;  // width inside the feed-forward block
  int64_t layers = 0;
  int64_t heads = 0;          // query heads
  int64_t kv_heads = 0;       // key and value heads; divides heads
  int64_t head_dim = 0;       // even
  int64_t vocabulary = 0;     // rows of the embedding
  int64_t max_positions = 0;  // longest sequence, tokens
  float norm_epsilon = 0;
  double rope_theta = 0;
  RopeScaling rope_scaling;
  bool tied_embeddings = false;  // the output matrix is the embedding
  bool qkv_bias = false;
  bool output_bias = false;  // attention's output projection
  bool mlp_bias = false;
  std::vector<int32_t> eos;  // tokens that end a text; may be empty
  int32_t bos = -1;          // -1: none
};

// `text` is the file's content, `name` the file's name for messages: "<name>: <key> ...".
Result<ModelConfig> parse_config(const std::string& text, const std::string& name);

}  // namespace penstock::llama
