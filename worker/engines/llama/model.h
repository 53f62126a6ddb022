// A Llama-family transformer: tokens in, logits out.
//
// One forward() advances many sequences at once: each gives some consecutive tokens: one when it is
// decoding, a piece of its prompt when it is not. All rows go through the matrix products together,
// so a weight read from memory serves every sequence; only attention keeps them apart. Rows do not
// influence one another otherwise (ops.h), so what a sequence gets does not depend on the batch or
// on how its prompt was cut.
//
// Source: Touvron et al., "LLaMA" (2023), and Hugging Face's modeling_llama, whose numbers it
// reproduces.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/config.h"
#include "worker/engines/llama/kv_cache.h"
#include "worker/engines/llama/ops.h"
#include "worker/engines/llama/runner.h"
#include "worker/engines/llama/weights.h"

namespace penstock::llama {

class Model {
 public:
  // Reads config.json and the weights in `folder`. `backend` must outlive the model.
  static Result<Model> open(const std::string& folder, Backend& backend) {
    auto files = load_model(folder);
    return files ? make(std::move(*files), backend) : files.error();
  }
  // The same of files that have been read.
  static Result<Model> make(ModelFiles files, Backend& backend);

  const ModelConfig& config() const { return config_; }

  // Logits [parts that want them, vocabulary] in order of parts; valid until the next call. An
  // error is the device's and final. Memory for activations grows to the largest step seen.
  Result<std::span<const float>> forward(std::span<const SequencePart> parts, const KvCache& cache);

 private:
  // The rows of a step and the tensors they pass through.
  struct Step {
    std::vector<int32_t> tokens, positions, sequences, block_tables, wanted;
    Placement placement;
    Tensor hidden, normed, query, key, value, attended, gate, up, turns;
    Tensor last, logits;
  };

  explicit Model(Backend& backend) : backend_(&backend) {}

  Status place_weights();
  Status prepare(std::span<const SequencePart> parts);
  Status make_room();
  void attention_block(const LayerWeights& weights, KvLayer cache);
  void mlp_block(const LayerWeights& weights);

  Backend* backend_;
  ModelConfig config_;
  Weights weights_;
  std::vector<float> frequencies_;
  Buffer activations_;
  Step step_;
  std::vector<float> turns_;   // host side
  std::vector<float> logits_;  // host side
};

}  // namespace penstock::llama
