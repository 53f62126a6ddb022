#include "worker/engines/llama/cuda/plan.h"

#include <algorithm>

#include "worker/engines/llama/block_pool.h"

namespace penstock::llama::cuda {

int64_t bucket_of(int64_t rows) {
  if (rows <= 2) {
    return rows;
  }
  if (rows <= 4) {
    return 4;
  }
  return round_up(rows, rows <= 64 ? 8 : 32);
}

int64_t rows_per_tile(int64_t group) { return std::max<int64_t>(1, kTileQueries / group); }

int32_t splits_of(int64_t tiles, int64_t heads, int64_t kv_heads, int64_t processors) {
  constexpr int64_t kBlocksPerProcessor = 4;
  const int64_t chunks = (heads / kv_heads + kTileQueries - 1) / kTileQueries;
  const int64_t blocks = std::max<int64_t>(1, tiles * kv_heads * chunks);
  const int64_t splits = (kBlocksPerProcessor * processors + blocks - 1) / blocks;
  return static_cast<int32_t>(std::clamp<int64_t>(splits, 1, kMaxSplits));
}

int64_t most_partials(int64_t rows, int64_t heads, int64_t kv_heads, int64_t processors) {
  int64_t most = 0;
  for (int64_t tiles = 1; tiles <= rows; ++tiles) {
    const int64_t rows_then = std::min(rows, tiles * rows_per_tile(heads / kv_heads));
    most = std::max(most, rows_then * splits_of(tiles, heads, kv_heads, processors));
  }
  return most;
}

Result<int64_t> pool_blocks(int64_t memory, int64_t free_bytes, int64_t block_bytes, int64_t most) {
  constexpr int64_t kSpare = int64_t{1} << 30;
  int64_t budget = std::max<int64_t>(0, free_bytes - std::min(kSpare, free_bytes / 8));
  if (memory > 0) {
    budget = std::min(budget, memory);
  }
  const auto blocks = blocks_in(budget, block_bytes);
  return blocks ? Result<int64_t>(std::min(*blocks, most)) : blocks;
}

}  // namespace penstock::llama::cuda
