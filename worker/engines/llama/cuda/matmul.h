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
#include <string>

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
  Matmul(std::unique_ptr<CublasLt> library, bool exact);

  // So many rows cuBLASLt multiplies in place of `rows`, and buffers must have room for: multiples
  // of 16 up to 64, of 32 up to 256, of 128 beyond, so that few shapes are all there are. What is
  // in the rows beyond does not matter.
  static int64_t padded(int64_t rows);

  // Multiplies once with each number of rows up to `most`, so that no step is the first to ask the
  // library for one, or to load its code. `out` and `room` are as for padded(most) rows.
  Status prepare(CUstream_st* stream, float* out, const ActivationRoom& room, const Matrix& weight,
                 int64_t most);

  // What of the products is slow, for the operator: there is no library, or prepare() found that it
  // has nothing to offer for a weight. Empty: nothing.
  const std::string& slow() const { return slow_; }

  // The form that run() will want of `rows` rows for a product with `weight`.
  Activation form(const Matrix& weight, int64_t rows, const ActivationRoom& room);

  // out[rows, weight.rows] = x * weight^T. REQUIRES: x came from form() for the same arguments.
  Status run(CUstream_st* stream, float* out, const Activation& x, const Matrix& weight,
             int64_t rows);

 private:
  bool by_library(const Matrix& weight, int64_t rows);

  std::unique_ptr<CublasLt> library_;
  bool exact_;
  std::string slow_;
};

}  // namespace penstock::llama::cuda
