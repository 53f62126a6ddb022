#include "worker/engines/llama/kv_cache.h"

namespace penstock::llama {

Result<KvCache> KvCache::create(const ModelConfig& config, int64_t memory_bytes, Backend& backend) {
  const int64_t floats = config.kv_heads * config.head_dim * kBlockTokens;  // of one layer's keys
  const int64_t layer_bytes = floats * bytes_of(DType::kF32);
  const int64_t block_bytes = 2 * config.layers * layer_bytes;
  const auto blocks = blocks_in(memory_bytes, block_bytes);
  if (!blocks) {
    return blocks.error();
  }
  auto memory = backend.allocate(*blocks * block_bytes);
  if (!memory) {
    return memory.error();
  }
  KvCache cache(*blocks);
  cache.block_bytes_ = block_bytes;
  cache.memory_ = std::move(*memory);
  std::byte* at = cache.memory_.data();
  const int64_t step = *blocks * layer_bytes;
  for (int64_t i = 0; i < config.layers; ++i, at += 2 * step) {
    const int64_t heads = *blocks * config.kv_heads;
    cache.layers_.push_back({{at, DType::kF32, heads * config.head_dim, kBlockTokens},
                             {at + step, DType::kF32, heads * kBlockTokens, config.head_dim}});
  }
  return cache;
}

}  // namespace penstock::llama
