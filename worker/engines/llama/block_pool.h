// Which blocks of a key-value cache are free: counting only, no memory.
//
// A sequence owns whole blocks of 16 tokens, listed in its block table; which blocks does not
// matter, so the pool never fragments (Kwon et al., "PagedAttention", SOSP 2023). A job takes all
// the blocks it can ever need when it starts: it may wait for its turn, but once running it never
// runs out of memory midway.
#pragma once

#include <cstdint>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/dtype.h"

namespace penstock::llama {

class BlockPool {
 public:
  BlockPool() = default;
  explicit BlockPool(int64_t blocks);  // REQUIRES: blocks <= INT32_MAX

  int64_t blocks() const { return blocks_; }
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }
  static int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

  // Takes `count` blocks, or none and returns an empty table if fewer are free. REQUIRES: count >
  // 0.
  std::vector<int32_t> take(int64_t count);
  // REQUIRES: all of them were taken from here.
  void give_back(const std::vector<int32_t>& blocks);

 private:
  int64_t blocks_ = 0;
  std::vector<int32_t> free_;  // a stack: blocks used last are used next, while they are warm
};

// How many blocks `memory_bytes` holds, or an Error with the numbers if that is none.
Result<int64_t> blocks_in(int64_t memory_bytes, int64_t block_bytes);

}  // namespace penstock::llama
