// Models for gpu_check: from files that flatten_model.py wrote, or made up on the spot.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/weights.h"

namespace penstock::llama {

struct FlatCase {
  std::vector<int32_t> prompt;
  std::vector<int32_t> greedy;  // what PyTorch goes on with
};

struct FlatModel {
  ModelFiles files;
  std::vector<std::shared_ptr<void>> maps;  // memory that made-up weights lie in
  std::vector<FlatCase> cases;
};

Result<FlatModel> read_flat(const std::string& path);

// Weights that keep activations near 1: a stretch of random numbers, seen again and again, so that
// whole models take some MiB. Of a model's shape, `config` is all there is to know. An Error says
// what memory could not be had.
Result<FlatModel> random_model(const ModelConfig& config, DType dtype, uint64_t seed);

// The shapes of Llama 3.2 1B and Llama 3.1 8B.
ModelConfig shape_1b();
ModelConfig shape_8b();

}  // namespace penstock::llama
