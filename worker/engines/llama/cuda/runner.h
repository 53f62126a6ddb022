// The model on a CUDA device.
//
// Everything is allocated when it is opened: weights, activations for the largest step, the cache.
// A step copies its integers there in one piece, runs the layers on the engine's one stream, draws
// the tokens on the device, and copies those back, pinned memory at both ends. It waits for its
// stream alone. Decode steps, whose shape is only their number of rows, are CUDA graphs, captured
// when the model is opened, one for each bucket (plan.h).
//
// A row's numbers depend on that row alone up to rounding: how many rows a product has decides
// which kernel computes it. (On the CPU they are the same to the last bit, see ops.h.)
//
// Sources: see ops.h; Yu et al., "Orca" (2022) for the mixed step.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/engines/llama/cuda/batch.h"
#include "worker/engines/llama/cuda/device_weights.h"
#include "worker/engines/llama/cuda/matmul.h"
#include "worker/engines/llama/cuda/plan.h"
#include "worker/engines/llama/cuda/runtime.h"
#include "worker/engines/llama/runner.h"

namespace penstock::llama::cuda {

struct CudaOptions {
  int64_t memory_bytes = 0;    // of the cache at most; 0: what is free
  int64_t max_parts = 0;       // of a step; held to 1 .. kMaxParts
  int64_t prefill_tokens = 0;  // of a step; 0: 512
  bool high_priority = true;
  bool sleeps = false;  // while the device works
  bool exact = false;   // see matmul.h, and an F32 cache: for comparison with the CPU
  bool graphs = true;   // off: every step is launched kernel by kernel
};

class CudaRunner final : public Runner {
 public:
  // REQUIRES: `device` is in use on this thread, the only one that uses the runner. `library` may
  // be null. An Error names what the device lacks: memory, or a kernel for heads of this size.
  static Result<std::unique_ptr<CudaRunner>> make(const ModelFiles& files, const DeviceInfo& device,
                                                  std::unique_ptr<CublasLt> library,
                                                  const CudaOptions& options);

  const char* name() const override { return device_.name.c_str(); }
  const ModelConfig& config() const override { return config_; }
  BlockPool& blocks() override { return blocks_; }
  int64_t block_bytes() const override { return block_bytes_; }
  int64_t max_parts() const override { return max_parts_; }
  int64_t prefill_tokens() const override { return prefill_tokens_; }
  Result<std::span<const int32_t>> step(std::span<const SequencePart> parts) override;
  std::span<const float> logprobs() const override { return logprobs_; }
  std::string slow() const override { return matmul_.slow(); }

  int64_t weight_bytes() const { return weights_.bytes; }
  int64_t graphs() const { return static_cast<int64_t>(graphs_.size()); }

  // The logits of the last step that drew tokens [tokens drawn, vocabulary], for comparison.
  Result<std::vector<float>> last_logits();

 private:
  // Activations on the device, for the largest step.
  struct Room {
    float* hidden = nullptr;     // [rows, hidden]
    float* delta = nullptr;      // [rows, hidden] what a block adds to it
    float* qkv = nullptr;        // [rows, (heads + 2 * kv_heads) * head_dim]
    float* gate_up = nullptr;    // [rows, 2 * intermediate]
    float* logits = nullptr;     // [draws, vocabulary]
    int32_t* drawn = nullptr;    // [draws]
    float* logprobs = nullptr;   // [draws]
    std::byte* edits = nullptr;  // as edit_staging_
    ActivationRoom activation;   // [rows, the widest input of a product]
    Partials partials;
    std::byte* batch = nullptr;
  };

  CudaRunner(ModelConfig config, DeviceInfo device, std::unique_ptr<CublasLt> library,
             const CudaOptions& options);

  Status make_room();
  Status make_cache(DType dtype);
  Status prepare_products();
  Status make_graphs();
  int64_t row_capacity() const;
  int64_t begins_bytes() const;
  int64_t edit_bytes() const;
  int64_t lay_out(std::byte* base);

  Status run(const BatchShape& shape);
  Status forward(const BatchShape& shape);
  Status attend(const DeviceLayer& weights, const CacheLayer& cache, const BatchShape& shape,
                const float* delta, const float* delta_bias);
  Status feed_forward(const DeviceLayer& weights, const BatchShape& shape);
  Status draw(const BatchShape& shape);
  Status draw_edited(std::span<const SequencePart> parts);
  Status redraw(int64_t first, int64_t rows, int64_t edits);
  Status tell_logprobs();

  const ModelConfig config_;
  const DeviceInfo device_;
  const CudaOptions options_;
  const int64_t max_parts_;
  const int64_t prefill_tokens_;
  const HeadShape heads_;

  Stream stream_;
  Event done_;  // if it sleeps
  Matmul matmul_;
  DeviceWeights weights_;
  DeviceMemory memory_;
  Room room_;
  DeviceMemory cache_memory_;
  std::vector<CacheLayer> cache_;  // by layer
  BlockPool blocks_;
  int64_t block_bytes_ = 0;

  BatchLimits limits_;
  PinnedMemory staging_;  // the batch, then the drawn tokens
  BatchView host_batch_;
  BatchView batch_;  // on the device
  std::byte* host_drawn_ = nullptr;
  PinnedMemory
      edit_staging_;  // where each row's edits begin [draws + 1], edits [vocabulary], logprobs
  std::vector<float> logprobs_;
  int64_t last_drawn_ = 0;

  std::map<int64_t, Graph> graphs_;  // by bucket; gone before what they use
};

}  // namespace penstock::llama::cuda
