// The inner loops of the CPU backend, one table per instruction set.
//
// kernels_baseline.cc, kernels_avx2.cc and kernels_avx512.cc compile the same body (kernels_body.h)
// against their own vector type (simd_*.h) with their own compiler flags; ops_cpu.cc picks one at
// run time and deals out the work to threads. Only plain data is declared here, see dtype.h.
#pragma once

#include "worker/engines/llama/dtype.h"

namespace penstock::llama {

struct MatmulArgs {
  float* out;          // [tokens, out_cols]
  const float* x;      // [tokens, cols]
  const void* weight;  // [out_cols, cols]
  int64_t tokens;
  int64_t cols;
  int64_t out_cols;
};

// One row's query heads that share one key-value head.
struct AttendArgs {
  float* out;          // [group, head_dim]
  const float* query;  // [group, head_dim]
  const float* keys;   // the layer's, see KvLayer in ops.h
  const float* values;
  const int32_t* blocks;  // the sequence's block table
  int64_t length;         // positions to look at, at least 1
  int64_t kv_heads;
  int64_t kv_head;
  int64_t head_dim;
  int64_t group;  // query heads, at most kMaxGroup
};
constexpr int64_t kMaxGroup = 64;

struct Kernels {
  const char* name;
  // Columns [begin, end) of out. By the weight's DType.
  void (*matmul[kDTypes])(const MatmulArgs& args, int64_t begin, int64_t end);
  // One row of n. By the weight's DType.
  void (*rms_norm[kDTypes])(float* out, const float* x, const void* weight, int64_t n,
                            float epsilon);
  void (*attend)(const AttendArgs& args);
  void (*swiglu)(float* gate, const float* up, int64_t n);
};

const Kernels& baseline_kernels();
// Only where compiled for x86-64, and callable only where the machine has the instructions.
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();

}  // namespace penstock::llama
