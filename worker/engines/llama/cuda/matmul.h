// Which kernel multiplies what, and in which form it wants its input.
//
//     1 .. 4 rows              gemv: F32 input as it is, bound by the reading of the weight
//     more, cuBLASLt has one   cuBLASLt: input rounded to the weight's dtype, or F32
//     else                     matmul_tiled: F32 input as it is
//
// With `exact`, what rounding lost is multiplied, too, and added: tests compare tokens with the
// CPU's that way, at twice the work.
#pragma once

#include <cstdint>
#include <memory>

#include "shared/base/result.h"
#include "worker/engines/llama/cuda/cublaslt.h"
#include "worker/engines/llama/cuda/kernels.h"

namespace penstock::llama::cuda {

// Room for an activation in all its forms.
struct ActivationRoom {
  float* f32 = nullptr;
  void* high = nullptr;
  void* low = nullptr;
};

class Matmul {
 public:
  // `library` may be null.
  Matmul(std::unique_ptr<CublasLt> library, bool exact)
      : library_(std::move(library)), exact_(exact) {}

  // Rows that buffers must have room for beyond those of a step: cuBLASLt is asked for multiples of
  // this, so that few shapes are enough. What is in the rows beyond does not matter.
  static constexpr int64_t kRowUnit = 16;

  // The form that run() will want of `rows` rows for a product with `weight`.
  Activation form(const Matrix& weight, int64_t rows, const ActivationRoom& room);

  // out[rows, weight.rows] = x * weight^T. REQUIRES: x came from form() for the same arguments.
  Status run(CUstream_st* stream, float* out, const Activation& x, const Matrix& weight,
             int64_t rows);

 private:
  bool by_library(const Matrix& weight, int64_t rows);

  std::unique_ptr<CublasLt> library_;
  bool exact_;
};

}  // namespace penstock::llama::cuda
