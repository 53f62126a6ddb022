// The inner loops, written once for any vector type. Included by kernels_*.cc after a `Simd` is
// defined; everything is in an unnamed namespace, so each instruction set keeps its own copy.
//
// Matrix products are dot products: weights [rows, cols] and activations [tokens, cols] both lie
// along the summed dimension, so nothing is repacked. Every output element has one vector
// accumulator of its own, filled in order of columns, whatever tile it is computed in. That makes a
// row's result independent of how many rows are computed with it, to the last bit. Tiles exist only
// to load each weight and activation once for several products: a tile of kTileRows x kTileTokens
// accumulators just fits the registers.
#pragma once

#include "worker/engines/llama/kernels.h"

namespace penstock::llama {
namespace {

using Vec = Simd::Vec;
constexpr int64_t kLanes = Simd::kLanes;

template <typename W>
inline Vec load_some(const W* from, int64_t n) {
  return n == kLanes ? Simd::load(from) : Simd::load_part(from, n);
}

// ---- matmul ------------------------------------------------------------------------------------

constexpr int kFewTokens = 3;

template <typename W, int kRows, int kTokens>
inline void tile_step(Vec (&sums)[kRows][kTokens], const W* weight, const float* x, int64_t cols,
                      int64_t at, int64_t n) {
  Vec w[kRows];
  for (int r = 0; r < kRows; ++r) {
    w[r] = load_some(weight + r * cols + at, n);
    if constexpr (kTokens < kFewTokens) {
      // Bound by memory: ask for the next tile's line now. Rows are too short for the processor to
      // see the pattern.
      __builtin_prefetch(weight + (r + kRows) * cols + at);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    const Vec xv = load_some(x + t * cols + at, n);
    for (int r = 0; r < kRows; ++r) {
      sums[r][t] = Simd::multiply_add(w[r], xv, sums[r][t]);
    }
  }
}

// out[t, row + r] for kRows rows of the weight and kTokens rows of x from `token`.
template <typename W, int kRows, int kTokens>
void tile(const MatmulArgs& args, int64_t row, int64_t token) {
  const W* weight = static_cast<const W*>(args.weight) + row * args.cols;
  const float* x = args.x + token * args.cols;
  Vec sums[kRows][kTokens];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      sums[r][t] = Simd::zero();
    }
  }
  int64_t at = 0;
  for (; at + kLanes <= args.cols; at += kLanes) {
    tile_step<W, kRows, kTokens>(sums, weight, x, args.cols, at, kLanes);
  }
  if (at < args.cols) {
    tile_step<W, kRows, kTokens>(sums, weight, x, args.cols, at, args.cols - at);
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kRows; ++r) {
      args.out[(token + t) * args.out_cols + row + r] = Simd::sum(sums[r][t]);
    }
  }
}

// Rows [begin, end) for exactly kTokens tokens: wide tiles, then single rows.
template <typename W, int kRows, int kTokens>
void tile_column(const MatmulArgs& args, int64_t begin, int64_t end, int64_t token) {
  int64_t row = begin;
  for (; row + kRows <= end; row += kRows) {
    tile<W, kRows, kTokens>(args, row, token);
  }
  for (; row < end; ++row) {
    tile<W, 1, kTokens>(args, row, token);
  }
}

// The 1 .. kTileTokens - 1 tokens a full tile leaves. Few tokens leave registers for more rows: a
// single token (decoding) reads memory through eight streams.
template <typename W, int kTokens>
void last_tokens(const MatmulArgs& args, int64_t begin, int64_t end, int64_t token) {
  if constexpr (kTokens > 0) {
    if (args.tokens - token == kTokens) {
      constexpr int kRows = kTokens < kFewTokens ? 8 / kTokens : Simd::kTileRows;
      tile_column<W, kRows, kTokens>(args, begin, end, token);
    } else {
      last_tokens<W, kTokens - 1>(args, begin, end, token);
    }
  }
}

// Weights are taken a block at a time that stays in the second-level cache while all tokens pass
// over it.
template <typename W>
void matmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  constexpr int64_t kBlockBytes = 256 << 10;
  const int64_t fit = kBlockBytes / (args.cols * static_cast<int64_t>(sizeof(W)));
  const int64_t block = fit < 24 ? 24 : fit - fit % 24;  // whole tiles of 2, 3, 4 or 8 rows
  for (int64_t from = begin; from < end; from += block) {
    const int64_t to = from + block < end ? from + block : end;
    int64_t token = 0;
    for (; token + Simd::kTileTokens <= args.tokens; token += Simd::kTileTokens) {
      tile_column<W, Simd::kTileRows, Simd::kTileTokens>(args, from, to, token);
    }
    last_tokens<W, Simd::kTileTokens - 1>(args, from, to, token);
  }
}

// ---- rms_norm ----------------------------------------------------------------------------------

template <typename W>
void rms_norm(float* out, const float* x, const void* weight, int64_t n, float epsilon) {
  Vec squares = Simd::zero();
  for (int64_t at = 0; at < n; at += kLanes) {
    const Vec v = load_some(x + at, n - at < kLanes ? n - at : kLanes);
    squares = Simd::multiply_add(v, v, squares);
  }
  const float mean = Simd::sum(squares) / static_cast<float>(n);
  const Vec scale = Simd::broadcast(1.0F / __builtin_sqrtf(mean + epsilon));
  for (int64_t at = 0; at < n; at += kLanes) {
    const int64_t some = n - at < kLanes ? n - at : kLanes;
    const Vec w = load_some(static_cast<const W*>(weight) + at, some);
    const Vec v = Simd::multiply(Simd::multiply(load_some(x + at, some), scale), w);
    Simd::store_part(out + at, v, some);
  }
}

// ---- exp, swiglu -------------------------------------------------------------------------------

// e^x to about two units in the last place, x held to [-87.3, 88.0]: x = n ln 2 + r, |r| <= ln 2 /
// 2, and e^r by its Taylor series up to r^7 (the next term is below 1e-8). ln 2 comes in two parts
// so that n ln 2 is exact in the first.
inline Vec exp_of(Vec x) {
  x = Simd::max_of(Simd::min_of(x, Simd::broadcast(88.0F)), Simd::broadcast(-87.3F));
  const Vec n = Simd::round(Simd::multiply(x, Simd::broadcast(1.44269504F)));
  Vec r = Simd::multiply_add(n, Simd::broadcast(-0.693359375F), x);
  r = Simd::multiply_add(n, Simd::broadcast(2.12194440e-4F), r);
  constexpr float kTaylor[] = {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F};
  Vec p = Simd::broadcast(1.0F / 5040);
  for (const float term : kTaylor) {
    p = Simd::multiply_add(p, r, Simd::broadcast(term));
  }
  return Simd::scale_by_power_of_two(p, n);
}

void swiglu(float* gate, const float* up, int64_t n) {
  const Vec one = Simd::broadcast(1.0F);
  for (int64_t at = 0; at < n; at += kLanes) {
    const int64_t some = n - at < kLanes ? n - at : kLanes;
    const Vec g = load_some(gate + at, some);
    const Vec below = Simd::add(one, exp_of(Simd::negate(g)));
    const Vec v = Simd::multiply(Simd::divide(g, below), load_some(up + at, some));
    Simd::store_part(gate + at, v, some);
  }
}

// ---- attention ---------------------------------------------------------------------------------

// The names are FlashAttention's: s = q k, p = exp(s - m), o = p v; m is the largest s so far and l
// the sum of p.

constexpr int64_t kVecs = kBlockTokens / kLanes;  // vectors of scores in one block

struct Softmax {  // of one query head so far
  float m;
  float l;
};

// s[0 .. 15] = q . k of one block. Stale slots give whatever they give; the caller ignores them.
inline void score_block(const float* q, const float* keys, int64_t head_dim, float scale,
                        float* s) {
  Vec even[kVecs];
  Vec odd[kVecs];  // a second chain of sums hides half the latency
  for (int64_t v = 0; v < kVecs; ++v) {
    even[v] = odd[v] = Simd::zero();
  }
  for (int64_t d = 0; d < head_dim; d += 2) {
    const Vec q0 = Simd::broadcast(q[d]);
    const Vec q1 = Simd::broadcast(q[d + 1]);
    const float* k = keys + d * kBlockTokens;
    for (int64_t v = 0; v < kVecs; ++v) {
      even[v] = Simd::multiply_add(q0, Simd::load(k + v * kLanes), even[v]);
      odd[v] = Simd::multiply_add(q1, Simd::load(k + kBlockTokens + v * kLanes), odd[v]);
    }
  }
  for (int64_t v = 0; v < kVecs; ++v) {
    const Vec sum = Simd::multiply(Simd::add(even[v], odd[v]), Simd::broadcast(scale));
    Simd::store(s + v * kLanes, sum);
  }
}

// Turns s[0 .. n) into p, and returns the alpha that rescales what was summed before m has grown.
inline float softmax_block(Softmax& state, float* s, int64_t n) {
  float m = state.m;
  for (int64_t i = 0; i < n; ++i) {
    m = s[i] > m ? s[i] : m;
  }
  float shift[kLanes];
  Simd::store(shift, exp_of(Simd::broadcast(state.m - m)));
  const float alpha = state.l == 0 ? 0.0F : shift[0];
  for (int64_t v = 0; v < kVecs; ++v) {
    const Vec each = Simd::load(s + v * kLanes);
    Simd::store(s + v * kLanes, exp_of(Simd::add(each, Simd::broadcast(-m))));
  }
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += s[i];
  }
  state.l = state.l * alpha + sum;
  state.m = m;
  return alpha;
}

// o = alpha o + p . v of n tokens.
inline void accumulate_o(float* o, const float* values, const float* p, int64_t n, int64_t head_dim,
                         float alpha) {
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    const int64_t some = head_dim - d < kLanes ? head_dim - d : kLanes;
    Vec sum = Simd::multiply(load_some(o + d, some), Simd::broadcast(alpha));
    for (int64_t i = 0; i < n; ++i) {
      const Vec v = load_some(values + i * head_dim + d, some);
      sum = Simd::multiply_add(Simd::broadcast(p[i]), v, sum);
    }
    Simd::store_part(o + d, sum, some);
  }
}

// One pass over the blocks with a running softmax; the order of sums depends on the row's position
// alone.
void attend(const AttendArgs& args) {
  const int64_t head_dim = args.head_dim;
  const float scale = 1.0F / __builtin_sqrtf(static_cast<float>(head_dim));
  Softmax states[kMaxGroup];
  for (int64_t g = 0; g < args.group; ++g) {
    states[g] = {-3.0e38F, 0.0F};
  }
  for (int64_t i = 0; i < args.group * head_dim; ++i) {
    args.out[i] = 0;
  }
  for (int64_t from = 0; from < args.length; from += kBlockTokens) {
    const int64_t at = args.blocks[from / kBlockTokens] * args.kv_heads + args.kv_head;
    const int64_t n = args.length - from < kBlockTokens ? args.length - from : kBlockTokens;
    const int64_t block = at * head_dim * kBlockTokens;
    for (int64_t g = 0; g < args.group; ++g) {
      alignas(64) float p[kBlockTokens];  // at first s
      score_block(args.query + g * head_dim, args.keys + block, head_dim, scale, p);
      const float alpha = softmax_block(states[g], p, n);
      accumulate_o(args.out + g * head_dim, args.values + block, p, n, head_dim, alpha);
    }
  }
  for (int64_t g = 0; g < args.group; ++g) {
    for (int64_t d = 0; d < head_dim; ++d) {
      args.out[g * head_dim + d] /= states[g].l;
    }
  }
}

constexpr Kernels kKernels = {
    Simd::kName,
    {matmul<float>, matmul<F16>, matmul<BF16>},
    {rms_norm<float>, rms_norm<F16>, rms_norm<BF16>},
    attend,
    swiglu,
};

}  // namespace
}  // namespace penstock::llama
