// Matrix products by cuBLASLt, which is found when it is first wanted, not linked: the library is
// half a gigabyte, no archive of it comes with every toolkit, and a worker must start, and can work
// (matmul_tiled in kernels.h), where it is not.
#pragma once

#include <cstdint>
#include <memory>

#include "shared/base/result.h"
#include "worker/engines/llama/cuda/kernels.h"

namespace penstock::llama::cuda {

class CublasLt {
 public:
  virtual ~CublasLt() = default;

  // Whether there is an algorithm for x [rows, weight.cols] of the weight's own dtype. Asks the
  // library the first time and remembers; may take a millisecond then.
  virtual bool can(const Matrix& weight, int64_t rows) = 0;

  // out[rows, weight.rows] = x * weight^T in F32, or += if `add`. REQUIRES: can(weight, rows).
  virtual Status multiply(CUstream_st* stream, float* out, const void* x, const Matrix& weight,
                          int64_t rows, bool add) = 0;
};

// An Error says that the library was not found, where it was looked for, or what it answered.
Result<std::unique_ptr<CublasLt>> open_cublaslt();

}  // namespace penstock::llama::cuda
