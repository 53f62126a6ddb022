// Paged grouped-query attention, for prompts and for decoding alike.
//
// A thread block takes one tile of rows (up to 8 queries: rows of a sequence times heads that share
// a key-value head) over one split of the sequence. It walks the split 64 tokens at a time, once,
// with a running softmax:
//
//     scores   eight lanes share a token's key, each reads 16 bytes at a time of it
//     softmax  a warp for each query: new top, weights exp(score - top), shrink of what was
//     values   a thread owns 16 bytes of the values' width and every n-th token of the 64
//
// so that each key and value is read from memory once for all the queries. Splits, whose number
// depends on no length, keep the device busy when there are few sequences and long ones; a second
// kernel merges them.
//
// Sources: Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018); Dao et al.,
// "FlashAttention" (2022); "Flash-Decoding" (2023) for the splits; Kwon et al., "PagedAttention"
// (2023).
#include "worker/engines/llama/cuda/device_code.cuh"

namespace penstock::llama::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kLanesPerToken = 8;
constexpr int kTokensAtOnce = kThreads / kLanesPerToken;
constexpr int kMaxTeams = 16;  // of threads that together own a row of values
constexpr int kMergeThreads = 128;
// Elements a thread takes at a time: 16 bytes of F16, where the head's size allows.
constexpr int kWide = 8;
constexpr int kNarrow = 2;

static_assert(kTileTokens == 2 * kWarp && kTileTokens % kTokensAtOnce == 0);
static_assert(kTileQueries <= kLanesPerToken, "a lane writes one query's score");

// Which queries, and which tokens, a thread block works on.
struct Part {
  int32_t first_row;
  int32_t kv_head;
  int32_t first_head;
  int32_t heads;    // of each row here
  int32_t queries;  // rows * heads, at most kTileQueries
  int32_t begin;    // tokens [begin, end)
  int32_t end;

  __device__ int32_t row_of(int query) const { return first_row + query / heads; }
  __device__ int32_t head_of(int query) const { return first_head + query % heads; }
};

__device__ inline Part part_of(const Attention& args) {
  const Tile tile = args.batch.tiles[blockIdx.x];
  const auto kv_heads = static_cast<int32_t>(args.shape.kv_heads);
  const auto group = static_cast<int32_t>(args.shape.heads) / kv_heads;
  const int32_t skipped = static_cast<int32_t>(blockIdx.y) / kv_heads * kTileQueries;
  Part part;
  part.first_row = tile.row;
  part.kv_head = static_cast<int32_t>(blockIdx.y) % kv_heads;
  part.first_head = part.kv_head * group + skipped;
  part.heads = min(kTileQueries, group - skipped);
  part.queries = tile.rows * part.heads;
  const int32_t reach = args.batch.reaches[tile.row];
  const int32_t tokens = split_tokens(reach, args.splits);
  part.begin = static_cast<int32_t>(blockIdx.z) * tokens;
  part.end = min(reach, part.begin + tokens);
  return part;
}

// What the block shares. `queries` and the room behind it are dynamic: head_dim decides.
struct Shared {
  float scores[kTileQueries][kTileTokens];  // then weights
  float tops[kTileQueries];
  float sums[kTileQueries];
  float shrinks[kTileQueries];
};

// A token's row of keys or values.
template <typename K>
__device__ inline const K* cache_row(const Attention& args, const void* cache, const Part& part,
                                     int32_t token) {
  const int32_t* blocks = args.batch.blocks + args.batch.tables[part.first_row];
  const int64_t block = blocks[token / kBlockTokens];
  const int64_t row = (block * args.shape.kv_heads + part.kv_head) * kBlockTokens;
  return static_cast<const K*>(cache) + (row + token % kBlockTokens) * args.shape.head_dim;
}

// The queries, scaled, into shared memory.
__device__ inline void read_queries(const Attention& args, const Part& part, float* queries) {
  const auto dim = static_cast<int32_t>(args.shape.head_dim);
  const int64_t width = (args.shape.heads + 2 * args.shape.kv_heads) * dim;
  const float scale = 1.0F / sqrtf(static_cast<float>(dim));
  for (int32_t i = threadIdx.x; i < part.queries * dim; i += kThreads) {
    const int query = i / dim;
    const float* row = args.qkv + part.row_of(query) * width + part.head_of(query) * dim;
    queries[i] = row[i % dim] * scale;
  }
}

// scores[query][t] for the 64 tokens from `base`; -infinity where a query does not look.
template <typename K, int kVec>
__device__ inline void score_tile(const Attention& args, const Part& part, const float* queries,
                                  int32_t base, Shared& shared) {
  const auto dim = static_cast<int32_t>(args.shape.head_dim);
  const int lane = threadIdx.x % kLanesPerToken;
  for (int t = threadIdx.x / kLanesPerToken; t < kTileTokens; t += kTokensAtOnce) {
    const int32_t token = base + t;
    float dots[kTileQueries] = {};
    if (token < part.end) {
      const K* key = cache_row<K>(args, args.cache.keys, part, token);
      for (int32_t at = lane * kVec; at < dim; at += kLanesPerToken * kVec) {
        float k[kVec];
        load(key + at, k);
        PENSTOCK_UNROLL
        for (int query = 0; query < kTileQueries; ++query) {
          if (query < part.queries) {
            float q[kVec];
            load(queries + query * dim + at, q);
            PENSTOCK_UNROLL
            for (int i = 0; i < kVec; ++i) {
              dots[query] += q[i] * k[i];
            }
          }
        }
      }
    }
    // All lanes of the warp are here, whichever tokens they have: t is the same up to a constant.
    PENSTOCK_UNROLL
    for (int query = 0; query < kTileQueries; ++query) {
      for (int step = kLanesPerToken / 2; step > 0; step /= 2) {
        dots[query] += __shfl_xor_sync(kAllLanes, dots[query], step);
      }
      if (lane == query && query < part.queries) {
        const bool looks = token < part.end && token <= args.batch.positions[part.row_of(query)];
        shared.scores[query][t] = looks ? dots[query] : -INFINITY;
      }
    }
  }
}

// Scores to weights, and what the sums so far must shrink by.
__device__ inline void soften_tile(const Part& part, Shared& shared) {
  const int lane = threadIdx.x % kWarp;
  for (int query = threadIdx.x / kWarp; query < part.queries; query += kWarps) {
    float* scores = shared.scores[query];
    const float before = shared.tops[query];
    const float sum_before = shared.sums[query];
    const float a = scores[lane];
    const float b = scores[lane + kWarp];
    const float top = fmaxf(before, warp_max(fmaxf(a, b)));
    const bool none = top == -INFINITY;  // nothing to look at so far
    const float weight_a = none ? 0.0F : expf(a - top);
    const float weight_b = none ? 0.0F : expf(b - top);
    const float shrink = none ? 0.0F : expf(before - top);
    const float sum = warp_sum(weight_a + weight_b);
    __syncwarp();  // all have read
    scores[lane] = weight_a;
    scores[lane + kWarp] = weight_b;
    if (lane == 0) {
      shared.tops[query] = top;
      shared.sums[query] = sum_before * shrink + sum;
      shared.shrinks[query] = shrink;
    }
  }
}

// Which part of the values' width is a thread's, and which of every `teams` tokens.
struct Share {
  int32_t at;    // first component
  int32_t team;  // -1: this thread has none
  int32_t teams;
};

template <int kVec>
__device__ inline Share share_of(int32_t dim) {
  const int32_t pieces = dim / kVec;  // at most kThreads, see can_attend()
  const int32_t teams = min(kThreads / pieces, kMaxTeams);
  const int32_t team = static_cast<int32_t>(threadIdx.x) / pieces;
  return {static_cast<int32_t>(threadIdx.x) % pieces * kVec, team < teams ? team : -1, teams};
}

template <typename K, int kVec>
__device__ inline void add_values(const Attention& args, const Part& part, const Share& share,
                                  int32_t base, const Shared& shared,
                                  float (&sums)[kTileQueries][kVec]) {
  if (share.team < 0) {
    return;
  }
  PENSTOCK_UNROLL
  for (int query = 0; query < kTileQueries; ++query) {
    const float shrink = query < part.queries ? shared.shrinks[query] : 0.0F;
    PENSTOCK_UNROLL
    for (int i = 0; i < kVec; ++i) {
      sums[query][i] *= shrink;
    }
  }
  const int32_t tokens = min(kTileTokens, part.end - base);
  for (int32_t t = share.team; t < tokens; t += share.teams) {
    float value[kVec];
    load(cache_row<K>(args, args.cache.values, part, base + t) + share.at, value);
    PENSTOCK_UNROLL
    for (int query = 0; query < kTileQueries; ++query) {
      if (query < part.queries) {
        const float weight = shared.scores[query][t];
        PENSTOCK_UNROLL
        for (int i = 0; i < kVec; ++i) {
          sums[query][i] += weight * value[i];
        }
      }
    }
  }
}

// Adds up the teams' sums in shared memory, one team after another so that the order is always the
// same, and writes the split's partial softmax.
template <int kVec>
__device__ inline void write_partials(const Attention& args, const Part& part, const Share& share,
                                      const float (&sums)[kTileQueries][kVec], const Shared& shared,
                                      float* room, int64_t rows) {
  const auto dim = static_cast<int32_t>(args.shape.head_dim);
  for (int32_t team = 0; team < share.teams; ++team) {
    __syncthreads();  // the first time: nobody reads the queries any more
    if (share.team == team) {
      PENSTOCK_UNROLL
      for (int query = 0; query < kTileQueries; ++query) {
        if (query < part.queries) {
          float* to = room + query * dim + share.at;
          PENSTOCK_UNROLL
          for (int i = 0; i < kVec; ++i) {
            to[i] = team == 0 ? sums[query][i] : to[i] + sums[query][i];
          }
        }
      }
    }
  }
  __syncthreads();
  const int64_t split_at = static_cast<int64_t>(blockIdx.z) * rows;
  for (int32_t i = threadIdx.x; i < part.queries * dim; i += kThreads) {
    const int query = i / dim;
    const int64_t at = (split_at + part.row_of(query)) * args.shape.heads + part.head_of(query);
    args.partials.sums[at * dim + i % dim] = room[i];
    if (i % dim == 0) {
      args.partials.tops[at] = shared.tops[query];
      args.partials.weights[at] = shared.sums[query];
    }
  }
}

template <typename K, int kVec>
__global__ void __launch_bounds__(kThreads) attend(Attention args, int64_t rows) {
  PENSTOCK_DYNAMIC_SHARED(float, queries);  // [kTileQueries, head_dim]; in the end, sums
  __shared__ Shared shared;
  const Part part = part_of(args);
  if (part.begin >= part.end) {
    return;
  }
  read_queries(args, part, queries);
  if (threadIdx.x < kTileQueries) {
    shared.tops[threadIdx.x] = -INFINITY;
    shared.sums[threadIdx.x] = 0;
  }
  const Share share = share_of<kVec>(static_cast<int32_t>(args.shape.head_dim));
  float sums[kTileQueries][kVec] = {};
  for (int32_t base = part.begin; base < part.end; base += kTileTokens) {
    __syncthreads();  // the queries are there; the last tile's weights have been used
    score_tile<K, kVec>(args, part, queries, base, shared);
    __syncthreads();
    soften_tile(part, shared);
    __syncthreads();
    add_values<K, kVec>(args, part, share, base, shared, sums);
  }
  write_partials<kVec>(args, part, share, sums, shared, queries, rows);
}

// out[row, head] from the splits that had something to look at. One block for each.
__global__ void __launch_bounds__(kMergeThreads) merge(Attention args, int64_t rows) {
  const int64_t row = blockIdx.x;
  const int64_t head = blockIdx.y;
  const int64_t dim = args.shape.head_dim;
  const int64_t out_at = (row * args.shape.heads + head) * dim;
  const int32_t reach = args.batch.reaches[row];
  if (reach == 0) {  // a row that stands nowhere
    for (int64_t i = threadIdx.x; i < dim; i += kMergeThreads) {
      put(args.out, out_at + i, 0);
    }
    return;
  }
  const int32_t tokens = split_tokens(reach, args.splits);
  const int32_t splits = (reach + tokens - 1) / tokens;
  const auto at = [&](int32_t split) { return (split * rows + row) * args.shape.heads + head; };
  float top = -INFINITY;
  for (int32_t split = 0; split < splits; ++split) {
    top = fmaxf(top, args.partials.tops[at(split)]);
  }
  for (int64_t i = threadIdx.x; i < dim; i += kMergeThreads) {
    float sum = 0;
    float weight = 0;
    for (int32_t split = 0; split < splits; ++split) {
      // A split that one row of a tile sees and another does not has nothing for the other.
      const float scale = expf(args.partials.tops[at(split)] - top);
      sum += args.partials.sums[at(split) * dim + i] * scale;
      weight += args.partials.weights[at(split)] * scale;
    }
    put(args.out, out_at + i, sum / weight);
  }
}

template <typename K>
void launch_attend(CUstream_st* stream, const Attention& args, dim3 grid, int64_t rows) {
  const int64_t dim = args.shape.head_dim;
  const auto shared =
      static_cast<unsigned>(kTileQueries * dim * static_cast<int64_t>(sizeof(float)));
  if (dim % kWide == 0) {
    PENSTOCK_LAUNCH((attend<K, kWide>), grid, kThreads, shared, stream, args, rows);
  } else {
    PENSTOCK_LAUNCH((attend<K, kNarrow>), grid, kThreads, shared, stream, args, rows);
  }
}

}  // namespace

bool can_attend(int64_t head_dim) {
  return head_dim % kWide == 0 ? head_dim / kWide <= kThreads : head_dim / kNarrow <= kThreads;
}

void attention(CUstream_st* stream, const Attention& args, int64_t tiles, int64_t rows) {
  const int64_t group = args.shape.heads / args.shape.kv_heads;
  const int64_t chunks = (group + kTileQueries - 1) / kTileQueries;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(args.shape.kv_heads * chunks),
                  static_cast<unsigned>(args.splits));
  switch (args.cache.dtype) {
    case DType::kF32:
      launch_attend<float>(stream, args, grid, rows);
      break;
    case DType::kF16:
      launch_attend<F16>(stream, args, grid, rows);
      break;
    case DType::kBF16:
      launch_attend<BF16>(stream, args, grid, rows);
      break;
  }
  PENSTOCK_LAUNCH(merge, dim3(static_cast<unsigned>(rows), static_cast<unsigned>(args.shape.heads)),
                  kMergeThreads, 0, stream, args, rows);
}

}  // namespace penstock::llama::cuda
