// The kernels of a Llama-family model, each behind a function that launches it on a stream.
//
// A launch returns at once and tells of no error; runtime.h's launched() and wait() do. All
// pointers are the device's. `rows` is the number of tokens in the step, as in ops.h, whose
// reference backend says what each operation means; tests hold these kernels against it.
//
// With each stands what it needs: bytes that come from and go to memory, and floating-point
// operations (FLOPs; an exp or a cosine counts as one). `size` is that of one element of the weight
// or the cache. `form` is what one element of an Activation takes: 4 bytes as f32, 2 as high or
// low.
//
// The residual stream, sums and softmax are F32. What goes into a matrix product is written by the
// kernel that made it, in the form the product wants (Activation).
#pragma once

#include <cstdint>

#include "worker/engines/llama/cuda/batch.h"
#include "worker/engines/llama/dtype.h"
#include "worker/engines/llama/ops.h"

struct CUstream_st;

namespace penstock::llama::cuda {

// Rows of numbers on their way into a product, in one or more forms; null: not wanted.
struct Activation {
  float* f32 = nullptr;
  void* high = nullptr;  // rounded to `narrow`
  void* low = nullptr;   // ... and what that rounding lost, rounded likewise
  DType narrow = DType::kBF16;
};

// A matrix on the device, [rows, cols].
struct Matrix {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

// One layer of the cache: keys and values, each [blocks, kv_heads, 16, head_dim].
struct CacheLayer {
  void* keys = nullptr;
  void* values = nullptr;
  DType dtype = DType::kF32;
};

// out[t, :] = table[tokens[t], :].
// A row: width * (size + 4) bytes, no FLOPs.
void embed(CUstream_st* stream, float* out, const Matrix& table, const int32_t* tokens,
           int64_t rows);

// What add_norm works on. Row t of `out` is the norm of row t, or of row picked[t] if `picked` is
// not null, of hidden + delta + delta_bias. Without `picked` that sum also replaces `hidden`.
// A row: width * (16 + form) bytes (hidden read and written, delta, weight; the second reading
// comes from a cache), and 6 FLOPs for each of the width.
struct AddNorm {
  Activation out;
  float* hidden = nullptr;            // [rows, width]
  const float* delta = nullptr;       // [rows, width], or null
  const float* delta_bias = nullptr;  // [width], or null; only with delta
  const float* weight = nullptr;      // [width]
  const int32_t* picked = nullptr;    // [rows], or null
  float epsilon = 0;
  int64_t width = 0;
};
void add_norm(CUstream_st* stream, const AddNorm& args, int64_t rows);

// What rope_and_store works on: rows of query, key and value side by side. Adds the biases, turns
// query (in place) and key, and puts key and value into the cache. Rows at position -1 are left.
// A row: head_dim * (8 * heads + (8 + 2 * size) * kv_heads) bytes, and 9 FLOPs for each pair of
// components of query and key, a cosine and a sine among them.
struct RopeAndStore {
  float* qkv = nullptr;                // [rows, (heads + 2 * kv_heads) * head_dim]
  const float* bias = nullptr;         // as a row, or null
  const float* frequencies = nullptr;  // [head_dim / 2] (rope.h)
  CacheLayer cache;
  BatchView batch;
  HeadShape shape;
};
void rope_and_store(CUstream_st* stream, const RopeAndStore& args, int64_t rows);

// Attention in two launches: every split of every tile gives a partial softmax, and merging them is
// the second. The names are FlashAttention's (attention.cu).
// A tile and key-value head: 2 * reach * head_dim * size bytes of the cache, read once for each 8
// queries, and 4 * reach * head_dim FLOPs for each query. So decoding is bound by memory: at most 8
// FLOPs a byte of an F16 cache. The partials add 8 * splits * (head_dim + 2) bytes for each row and
// head, most of them within the cache of the device.
struct Partials {
  float* o = nullptr;  // [splits, rows, heads, head_dim] sum of exp(s - m) v
  float* m = nullptr;  // [splits, rows, heads] largest s = q k / sqrt(head_dim)
  float* l = nullptr;  // [splits, rows, heads] sum of exp(s - m)
};
struct Attention {
  Activation out;  // [rows, heads * head_dim]
  const float* qkv = nullptr;
  CacheLayer cache;
  BatchView batch;
  HeadShape shape;
  Partials partials;
  int32_t splits = 1;
  int64_t first_row = 0;  // where the tiles' rows begin; `rows` and the partials are of those alone
};
// Whether the kernel can be had for heads of this size.
bool can_attend(int64_t head_dim);
void attention(CUstream_st* stream, const Attention& args, int64_t tiles, int64_t rows);

// out[t, i] = silu(gate[t, i]) * up[t, i], gate and up side by side in a row of gate_up, `bias` a
// row like it, or null.
// A row: width * (8 + form) bytes, and 5 FLOPs for each of the width.
void swiglu(CUstream_st* stream, const Activation& out, const float* gate_up, const float* bias,
            int64_t rows, int64_t width);

// out[rows, weight.rows] = x[rows, weight.cols] * weight^T for at most kGemvRows rows: decoding,
// bound by the reading of the weight.
// weight.rows * weight.cols * size bytes, and 2 * rows FLOPs for each element of the weight.
constexpr int64_t kGemvRows = 4;
void gemv(CUstream_st* stream, float* out, const float* x, const Matrix& weight, int64_t rows);

// The same for any number of rows and any shape: where cuBLASLt is not, or has nothing to offer.
// 2 * rows * weight.rows * weight.cols FLOPs. The weight is read once for each 64 rows, and x once
// for each 64 rows of the weight.
void matmul_tiled(CUstream_st* stream, float* out, const float* x, const Matrix& weight,
                  int64_t rows);

// tokens[t] drawn from logits[t, :] as draws[t] says, or Runner::kNoToken. Without a temperature
// exactly what sampler.h's sample() says. With one the same distribution to 2^-40: weights are
// counted in integers, so that the sums, and with them the token, do not depend on the order
// threads add in.
// A row: 4 * vocabulary bytes for each pass. Greedy is one pass. With a temperature there are four;
// with top_p or top_k five, and where more than a thousand likely tokens are within a part in forty
// of the temperature of each other, one for each halving of that part, 32 at most.
void sample(CUstream_st* stream, int32_t* tokens, const float* logits, const Draw* draws,
            int64_t rows, int64_t vocabulary);

// logits[row, edits[i].token] as sampler.h's edit() says, for i from begins[row] to begins[row +
// 1]; what was there goes into edits[i].before, from where restore() puts it back. No token twice a
// row.
void edit(CUstream_st* stream, float* logits, LogitEdit* edits, const int32_t* begins, int64_t rows,
          int64_t vocabulary);
void restore(CUstream_st* stream, float* logits, const LogitEdit* edits, const int32_t* begins,
             int64_t rows, int64_t vocabulary);

// logprobs[t] = sampler.h's logprob_of() tokens[t], to F32's rounding; 0 for Runner::kNoToken.
// A row: two passes over 4 * vocabulary bytes, 3 FLOPs for each logit.
void score(CUstream_st* stream, float* logprobs, const int32_t* tokens, const float* logits,
           const Draw* draws, int64_t rows, int64_t vocabulary);

#if PENSTOCK_CUDA_FAULTS
// Writes where nothing is: the step ends with cudaErrorIllegalAddress. For checks only.
void illegal_access(CUstream_st* stream);
#endif

}  // namespace penstock::llama::cuda
