#include "worker/engines/llama/block_pool.h"

#include <algorithm>

namespace penstock::llama {

BlockPool::BlockPool(int64_t blocks) : blocks_(blocks) {
  free_.reserve(blocks);
  for (int64_t block = blocks; block > 0; --block) {
    free_.push_back(static_cast<int32_t>(block - 1));
  }
}

std::vector<int32_t> BlockPool::take(int64_t count) {
  if (count > free_blocks()) {
    return {};
  }
  std::vector<int32_t> blocks(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - count);
  return blocks;
}

void BlockPool::give_back(const std::vector<int32_t>& blocks) {
  free_.insert(free_.end(), blocks.rbegin(), blocks.rend());
}

Result<int64_t> blocks_in(int64_t memory_bytes, int64_t block_bytes) {
  const int64_t blocks = std::min<int64_t>(memory_bytes / block_bytes, INT32_MAX);
  if (blocks < 1) {
    return Error{"memory of " + std::to_string(memory_bytes) +
                 " bytes holds not even one block of " + std::to_string(kBlockTokens) +
                 " tokens, " + std::to_string(block_bytes) +
                 " bytes; give the model more `memory`"};
  }
  return blocks;
}

}  // namespace penstock::llama
