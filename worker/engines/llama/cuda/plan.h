// The arithmetic of a step on a GPU: pure, and the same in host code, device code and tests.
#pragma once

#include <cstdint>

#include "shared/base/result.h"
#include "worker/engines/llama/dtype.h"

#ifdef __CUDACC__
#define PENSTOCK_BOTH __host__ __device__
#else
#define PENSTOCK_BOTH
#endif

namespace penstock::llama::cuda {

// Attention reads the cache in tiles of this many tokens, four blocks.
constexpr int32_t kTileTokens = 64;
// ... for this many queries at a time, heads of a group times rows, so that keys are read once for
// all of them.
constexpr int32_t kTileQueries = 8;
// The longest sequence is cut into at most this many splits, each a thread block's.
constexpr int32_t kMaxSplits = 32;
// Sequences in one step, at most.
constexpr int64_t kMaxParts = 256;

// Decode steps run as CUDA graphs, one for each bucket of rows: 1, 2, 4, then multiples of 8 up to
// 64 and of 32 beyond. Rows that fill up a bucket stand at position -1 and touch no cache.
// REQUIRES: 1 <= rows <= kMaxParts.
int64_t bucket_of(int64_t rows);

// Rows of one tile that attention takes together: those of one sequence, consecutive.
// `group` is heads / kv_heads.
int64_t rows_per_tile(int64_t group);

// How many thread blocks share a sequence's length, so that `tiles` of them, times key-value heads
// and chunks of a group, keep all `processors` busy. Depends on no sequence's length: a captured
// graph serves all.
int32_t splits_of(int64_t tiles, int64_t heads, int64_t kv_heads, int64_t processors);

// Rows times their splits, at most, of a step of up to `rows` rows, whatever its tiles are.
int64_t most_partials(int64_t rows, int64_t heads, int64_t kv_heads, int64_t processors);

// Tokens of one split of a sequence that reaches over `reach` tokens: whole tiles. Splits that
// begin at or beyond `reach` have nothing to do.
PENSTOCK_BOTH constexpr int32_t split_tokens(int32_t reach, int32_t splits) {
  const int32_t tiles = (reach + kTileTokens - 1) / kTileTokens;
  return (tiles + splits - 1) / splits * kTileTokens;
}

// Cache blocks for a budget of `memory` bytes (0: none given) when `free_bytes` are free, never
// more than `most`. Leaves some memory to CUDA itself: graphs, and code that is loaded when it is
// first run. An Error if that is none.
Result<int64_t> pool_blocks(int64_t memory, int64_t free_bytes, int64_t block_bytes, int64_t most);

// Deals out one allocation: offsets, each aligned for any kernel and for cuBLASLt.
class Layout {
 public:
  static constexpr int64_t kAlign = 256;
  int64_t take(int64_t bytes) {
    const int64_t at = bytes_;
    bytes_ += (bytes + kAlign - 1) / kAlign * kAlign;
    return at;
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace penstock::llama::cuda
