// The keys and values of every running sequence on a Backend: a BlockPool and the memory its blocks
// are made of.
#pragma once

#include <cstdint>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/block_pool.h"
#include "worker/engines/llama/config.h"
#include "worker/engines/llama/ops.h"

namespace penstock::llama {

class KvCache : public BlockPool {
 public:
  // Makes as many blocks as `memory_bytes` holds; an Error if that is none. `backend` must outlive
  // this.
  static Result<KvCache> create(const ModelConfig& config, int64_t memory_bytes, Backend& backend);

  // Bytes of one block over all layers, keys and values.
  int64_t block_bytes() const { return block_bytes_; }

  KvLayer layer(int64_t number) const { return layers_[number]; }

 private:
  explicit KvCache(int64_t blocks) : BlockPool(blocks) {}

  int64_t block_bytes_ = 0;
  std::vector<KvLayer> layers_;
  Buffer memory_;
};

}  // namespace penstock::llama
