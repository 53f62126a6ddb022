#include "worker/engines/llama/kv_cache.h"

#include <algorithm>

namespace penstock::llama {

Result<KvCache> KvCache::create(const ModelConfig& config, int64_t memory_bytes, Backend& backend) {
  const int64_t floats = config.kv_heads * config.head_dim * kBlockTokens;  // of one layer's keys
  const int64_t layer_bytes = floats * bytes_of(DType::kF32);
  KvCache cache;
  cache.block_bytes_ = 2 * config.layers * layer_bytes;
  cache.blocks_ = std::min<int64_t>(memory_bytes / cache.block_bytes_, INT32_MAX);
  if (cache.blocks_ < 1) {
    return Error{"memory of " + std::to_string(memory_bytes) +
                 " bytes holds not even one block of " + std::to_string(kBlockTokens) +
                 " tokens, " + std::to_string(cache.block_bytes_) +
                 " bytes; give the model more `memory`"};
  }
  auto memory = backend.allocate(cache.blocks_ * cache.block_bytes_);
  if (!memory) {
    return memory.error();
  }
  cache.memory_ = std::move(*memory);
  std::byte* at = cache.memory_.data();
  const int64_t step = cache.blocks_ * layer_bytes;
  for (int64_t i = 0; i < config.layers; ++i, at += 2 * step) {
    const int64_t heads = cache.blocks_ * config.kv_heads;
    cache.layers_.push_back({{at, DType::kF32, heads * config.head_dim, kBlockTokens},
                             {at + step, DType::kF32, heads * kBlockTokens, config.head_dim}});
  }
  for (int64_t block = cache.blocks_; block > 0; --block) {
    cache.free_.push_back(static_cast<int32_t>(block - 1));
  }
  return cache;
}

std::vector<int32_t> KvCache::take(int64_t count) {
  if (count > free_blocks()) {
    return {};
  }
  std::vector<int32_t> blocks(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - count);
  return blocks;
}

void KvCache::give_back(const std::vector<int32_t>& blocks) {
  free_.insert(free_.end(), blocks.rbegin(), blocks.rend());
}

}  // namespace penstock::llama
