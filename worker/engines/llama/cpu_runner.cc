#include "worker/engines/llama/cpu_runner.h"

#include <vector>

#include "worker/engines/llama/kv_cache.h"
#include "worker/engines/llama/model.h"

namespace penstock::llama {
namespace {

class CpuRunner final : public Runner {
 public:
  CpuRunner(std::unique_ptr<Backend> backend, Model model, KvCache cache, int64_t prefill_tokens)
      : backend_(std::move(backend)),
        model_(std::move(model)),
        cache_(std::move(cache)),
        prefill_tokens_(prefill_tokens) {}

  const char* name() const override { return backend_->name(); }
  const ModelConfig& config() const override { return model_.config(); }
  BlockPool& blocks() override { return cache_; }
  int64_t block_bytes() const override { return cache_.block_bytes(); }
  int64_t max_parts() const override { return INT64_MAX; }
  int64_t prefill_tokens() const override { return prefill_tokens_; }

  Result<std::span<const int32_t>> step(std::span<const SequencePart> parts) override {
    const auto logits = model_.forward(parts, cache_);
    if (!logits) {
      return logits.error();
    }
    drawn_.clear();
    logprobs_.clear();
    const auto vocabulary = static_cast<size_t>(config().vocabulary);
    for (const SequencePart& part : parts) {
      if (part.wants_logits) {
        draw(part, logits->subspan(vocabulary * drawn_.size(), vocabulary));
      }
    }
    return std::span<const int32_t>(drawn_);
  }
  std::span<const float> logprobs() const override { return logprobs_; }

 private:
  void draw(const SequencePart& part, std::span<const float> logits) {
    std::span<const float> edited = logits;
    if (!part.edits.empty()) {
      edited_.assign(logits.begin(), logits.end());
      edit(part.edits, edited_);
      edited = edited_;
    }
    const int32_t token = sample(edited, part.sampling, part.random).value_or(kNoToken);
    drawn_.push_back(token);
    logprobs_.push_back(part.wants_logprob && token != kNoToken
                            ? logprob_of(logits, token, part.sampling.below)
                            : 0);
  }

  std::unique_ptr<Backend> backend_;
  Model model_;
  KvCache cache_;
  int64_t prefill_tokens_;
  std::vector<int32_t> drawn_;
  std::vector<float> logprobs_;
  std::vector<float> edited_;
};

}  // namespace

Result<std::unique_ptr<Runner>> open_cpu_runner(const std::string& folder,
                                                std::unique_ptr<Backend> backend,
                                                int64_t memory_bytes, int64_t prefill_tokens) {
  auto model = Model::open(folder, *backend);
  if (!model) {
    return model.error();
  }
  auto cache = KvCache::create(model->config(), memory_bytes, *backend);
  if (!cache) {
    return cache.error();
  }
  return std::unique_ptr<Runner>(std::make_unique<CpuRunner>(std::move(backend), std::move(*model),
                                                             std::move(*cache), prefill_tokens));
}

}  // namespace penstock::llama
