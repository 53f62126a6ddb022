// Paged grouped-query attention, for prompts and for decoding alike.
//
// Names are FlashAttention's: q, k, v; s = q k^T, p = exp(s - m), o = p v; m is the largest s so
// far and l the sum of p.
//
// A thread block takes up to 8 rows of q (rows of a sequence times heads that slice a key-value
// head) and one split of the sequence. It walks the split once, in tiles of 64 tokens:
//
//     s          eight lanes slice a token's k; each reads 16 bytes of it at a time
//     m, p, l    a warp for each row of q; alpha = exp(m before - m) rescales what was
//     o          a thread owns 16 bytes of the width of v, and every n-th token of the tile
//
// So each k and v is read from memory once for all rows of q. The number of splits depends on no
// length. Splits keep the device busy when sequences are few and long. A second kernel merges them.
// Rows that decode have a launch of their own: beside a prompt's many tiles they would not be
// split.
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

// What the block shares. q and the room behind it are dynamic: head_dim decides.
struct Shared {
  float p[kTileQueries][kTileTokens];  // at first s
  float m[kTileQueries];
  float l[kTileQueries];
  float alpha[kTileQueries];
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

// q, scaled, into shared memory.
__device__ inline void load_q(const Attention& args, const Part& part, float* q) {
  const auto dim = static_cast<int32_t>(args.shape.head_dim);
  const int64_t width = (args.shape.heads + 2 * args.shape.kv_heads) * dim;
  const float scale = 1.0F / sqrtf(static_cast<float>(dim));
  for (int32_t i = threadIdx.x; i < part.queries * dim; i += kThreads) {
    const int query = i / dim;
    const float* row = args.qkv + part.row_of(query) * width + part.head_of(query) * dim;
    q[i] = row[i % dim] * scale;
  }
}

// s[query][t] for the tile's tokens from `base`; -infinity where a query does not look.
template <typename K, int kVec>
__device__ inline void scores_of_tile(const Attention& args, const Part& part, const float* q,
                                      int32_t base, Shared& shared) {
  const auto dim = static_cast<int32_t>(args.shape.head_dim);
  const int lane = threadIdx.x % kLanesPerToken;
  for (int t = threadIdx.x / kLanesPerToken; t < kTileTokens; t += kTokensAtOnce) {
    const int32_t token = base + t;
    float s[kTileQueries] = {};
    if (token < part.end) {
      const K* k_row = cache_row<K>(args, args.cache.keys, part, token);
      for (int32_t at = lane * kVec; at < dim; at += kLanesPerToken * kVec) {
        float k[kVec];
        load(k_row + at, k);
        PENSTOCK_UNROLL
        for (int query = 0; query < kTileQueries; ++query) {
          if (query < part.queries) {
            float q_part[kVec];
            load(q + query * dim + at, q_part);
            PENSTOCK_UNROLL
            for (int i = 0; i < kVec; ++i) {
              s[query] += q_part[i] * k[i];
            }
          }
        }
      }
    }
    // All lanes of the warp are here, whichever tokens they have: t is the same up to a constant.
    PENSTOCK_UNROLL
    for (int query = 0; query < kTileQueries; ++query) {
      for (int step = kLanesPerToken / 2; step > 0; step /= 2) {
        s[query] += __shfl_xor_sync(kAllLanes, s[query], step);
      }
      if (lane == query && query < part.queries) {
        const bool looks = token < part.end && token <= args.batch.positions[part.row_of(query)];
        shared.p[query][t] = looks ? s[query] : -INFINITY;
      }
    }
  }
}

// s to p, the new m and l, and the alpha that rescales what was summed before.
__device__ inline void softmax_of_tile(const Part& part, Shared& shared) {
  const int lane = threadIdx.x % kWarp;
  for (int query = threadIdx.x / kWarp; query < part.queries; query += kWarps) {
    float* row = shared.p[query];
    const float m_before = shared.m[query];
    const float l_before = shared.l[query];
    const float s0 = row[lane];
    const float s1 = row[lane + kWarp];
    const float m = fmaxf(m_before, warp_max(fmaxf(s0, s1)));
    const bool none = m == -INFINITY;  // nothing to look at so far
    const float p0 = none ? 0.0F : expf(s0 - m);
    const float p1 = none ? 0.0F : expf(s1 - m);
    const float alpha = none ? 0.0F : expf(m_before - m);
    const float sum = warp_sum(p0 + p1);
    __syncwarp();  // all have read
    row[lane] = p0;
    row[lane + kWarp] = p1;
    if (lane == 0) {
      shared.m[query] = m;
      shared.l[query] = l_before * alpha + sum;
      shared.alpha[query] = alpha;
    }
  }
}

// Which part of the width of v is a thread's, and which of every `teams` tokens.
struct Slice {
  int32_t at;    // first component
  int32_t team;  // -1: this thread has none
  int32_t teams;
};

template <int kVec>
__device__ inline Slice slice_of(int32_t dim) {
  const int32_t pieces = dim / kVec;  // at most kThreads, see can_attend()
  const int32_t teams = min(kThreads / pieces, kMaxTeams);
  const int32_t team = static_cast<int32_t>(threadIdx.x) / pieces;
  return {static_cast<int32_t>(threadIdx.x) % pieces * kVec, team < teams ? team : -1, teams};
}

// o = alpha o + p v.
template <typename K, int kVec>
__device__ inline void accumulate_o(const Attention& args, const Part& part, const Slice& slice,
                                    int32_t base, const Shared& shared,
                                    float (&o)[kTileQueries][kVec]) {
  if (slice.team < 0) {
    return;
  }
  PENSTOCK_UNROLL
  for (int query = 0; query < kTileQueries; ++query) {
    const float alpha = query < part.queries ? shared.alpha[query] : 0.0F;
    PENSTOCK_UNROLL
    for (int i = 0; i < kVec; ++i) {
      o[query][i] *= alpha;
    }
  }
  const int32_t tokens = min(kTileTokens, part.end - base);
  for (int32_t t = slice.team; t < tokens; t += slice.teams) {
    float v[kVec];
    load(cache_row<K>(args, args.cache.values, part, base + t) + slice.at, v);
    PENSTOCK_UNROLL
    for (int query = 0; query < kTileQueries; ++query) {
      if (query < part.queries) {
        const float p = shared.p[query][t];
        PENSTOCK_UNROLL
        for (int i = 0; i < kVec; ++i) {
          o[query][i] += p * v[i];
        }
      }
    }
  }
}

// Adds up the teams' o in shared memory, one team after another so that the order is always the
// same, and writes the split's o, m and l.
template <int kVec>
__device__ inline void write_partials(const Attention& args, const Part& part, const Slice& slice,
                                      const float (&o)[kTileQueries][kVec], const Shared& shared,
                                      float* room, int64_t rows) {
  const auto dim = static_cast<int32_t>(args.shape.head_dim);
  for (int32_t team = 0; team < slice.teams; ++team) {
    __syncthreads();  // the first time: nobody reads q any more
    if (slice.team == team) {
      PENSTOCK_UNROLL
      for (int query = 0; query < kTileQueries; ++query) {
        if (query < part.queries) {
          float* to = room + query * dim + slice.at;
          PENSTOCK_UNROLL
          for (int i = 0; i < kVec; ++i) {
            to[i] = team == 0 ? o[query][i] : to[i] + o[query][i];
          }
        }
      }
    }
  }
  __syncthreads();
  const int64_t split_at = static_cast<int64_t>(blockIdx.z) * rows;
  for (int32_t i = threadIdx.x; i < part.queries * dim; i += kThreads) {
    const int query = i / dim;
    const int64_t row = part.row_of(query) - args.first_row;
    const int64_t at = (split_at + row) * args.shape.heads + part.head_of(query);
    args.partials.o[at * dim + i % dim] = room[i];
    if (i % dim == 0) {
      args.partials.m[at] = shared.m[query];
      args.partials.l[at] = shared.l[query];
    }
  }
}

template <typename K, int kVec>
__global__ void __launch_bounds__(kThreads) attend(Attention args, int64_t rows) {
  PENSTOCK_DYNAMIC_SHARED(float, q);  // [kTileQueries, head_dim]; in the end, o
  __shared__ Shared shared;
  const Part part = part_of(args);
  if (part.begin >= part.end) {
    return;
  }
  load_q(args, part, q);
  if (threadIdx.x < kTileQueries) {
    shared.m[threadIdx.x] = -INFINITY;
    shared.l[threadIdx.x] = 0;
  }
  const Slice slice = slice_of<kVec>(static_cast<int32_t>(args.shape.head_dim));
  float o[kTileQueries][kVec] = {};
  for (int32_t base = part.begin; base < part.end; base += kTileTokens) {
    __syncthreads();  // q is there; the last tile's p has been used
    scores_of_tile<K, kVec>(args, part, q, base, shared);
    __syncthreads();
    softmax_of_tile(part, shared);
    __syncthreads();
    accumulate_o<K, kVec>(args, part, slice, base, shared, o);
  }
  write_partials<kVec>(args, part, slice, o, shared, q, rows);
}

// out[row, head] from the splits that had something to look at. One block for each.
__global__ void __launch_bounds__(kMergeThreads) merge(Attention args, int64_t rows) {
  const int64_t row = args.first_row + blockIdx.x;
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
  const auto at = [&](int32_t split) {
    return (split * rows + blockIdx.x) * args.shape.heads + head;
  };
  float m = -INFINITY;
  for (int32_t split = 0; split < splits; ++split) {
    m = fmaxf(m, args.partials.m[at(split)]);
  }
  for (int64_t i = threadIdx.x; i < dim; i += kMergeThreads) {
    float o = 0;
    float l = 0;
    for (int32_t split = 0; split < splits; ++split) {
      // A split that one row of a tile sees and another does not has nothing for the other.
      const float alpha = expf(args.partials.m[at(split)] - m);
      o += args.partials.o[at(split) * dim + i] * alpha;
      l += args.partials.l[at(split)] * alpha;
    }
    put(args.out, out_at + i, o / l);
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
  visit(args.cache.dtype, [&]<typename K>(K) { launch_attend<K>(stream, args, grid, rows); });
  PENSTOCK_LAUNCH(merge, dim3(static_cast<unsigned>(rows), static_cast<unsigned>(args.shape.heads)),
                  kMergeThreads, 0, stream, args, rows);
}

}  // namespace penstock::llama::cuda
