// The keys and values of every running sequence, in blocks of 16 tokens from one pool of fixed
// size.
//
// A sequence owns whole blocks, listed in its block table; which blocks does not matter, so the
// pool never fragments (Kwon et al., "PagedAttention", SOSP 2023). A job takes all the blocks it
// can ever need when it starts: it may wait for its turn, but once running it never runs out of
// memory midway.
#pragma once

#include <cstdint>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/config.h"
#include "worker/engines/llama/ops.h"

namespace penstock::llama {

class KvCache {
 public:
  // As many blocks as `memory_bytes` holds; an Error if that is none. `backend` must outlive this.
  static Result<KvCache> create(const ModelConfig& config, int64_t memory_bytes, Backend& backend);

  // Bytes of one block over all layers, keys and values.
  int64_t block_bytes() const { return block_bytes_; }
  int64_t blocks() const { return blocks_; }
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }
  static int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

  // Takes `count` blocks, or none and returns an empty table if fewer are free. REQUIRES: count >
  // 0.
  std::vector<int32_t> take(int64_t count);
  // REQUIRES: all of them were taken from here.
  void give_back(const std::vector<int32_t>& blocks);

  KvLayer layer(int64_t number) const { return layers_[number]; }

 private:
  KvCache() = default;

  int64_t blocks_ = 0;
  int64_t block_bytes_ = 0;
  std::vector<int32_t> free_;  // a stack: blocks used last are used next, while they are warm
  std::vector<KvLayer> layers_;
  Buffer memory_;
};

}  // namespace penstock::llama
