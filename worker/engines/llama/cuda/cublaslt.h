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

  // Its version and the file it is in, for people.
  virtual const char* name() const = 0;

  // Whether there is an algorithm for x [rows, weight.cols] of the weight's own dtype. Asks the
  // library the first time and remembers; may take a millisecond then.
  virtual bool can(const Matrix& weight, int64_t rows) = 0;

  // out[rows, weight.rows] = x * weight^T in F32, or += if `add`. REQUIRES: can(weight, rows).
  virtual Status multiply(CUstream_st* stream, float* out, const void* x, const Matrix& weight,
                          int64_t rows, bool add) = 0;
};

// Looks where the loader does, in the toolkit's folder, and where Python packages bring it (PyTorch
// does). An Error says that it was not found, where it was looked for, or what it answered.
Result<std::unique_ptr<CublasLt>> open_cublaslt();

}  // namespace penstock::llama::cuda
