#include "worker/engines/llama/cuda/matmul.h"

#include "worker/engines/llama/cuda/plan.h"

namespace penstock::llama::cuda {

bool Matmul::by_library(const Matrix& weight, int64_t rows) {
  return rows > kGemvRows && library_ != nullptr && library_->can(weight, round_up(rows, kRowUnit));
}

Activation Matmul::form(const Matrix& weight, int64_t rows, const ActivationRoom& room) {
  if (weight.dtype == DType::kF32 || !by_library(weight, rows)) {
    return {.f32 = room.f32};
  }
  return {.high = room.high, .low = exact_ ? room.low : nullptr, .narrow = weight.dtype};
}

Status Matmul::run(CUstream_st* stream, float* out, const Activation& x, const Matrix& weight,
                   int64_t rows) {
  if (!by_library(weight, rows)) {
    (rows <= kGemvRows ? gemv : matmul_tiled)(stream, out, x.f32, weight, rows);
    return Ok{};
  }
  const int64_t padded = round_up(rows, kRowUnit);
  const void* first = weight.dtype == DType::kF32 ? x.f32 : x.high;
  Status done = library_->multiply(stream, out, first, weight, padded, false);
  if (done && x.low != nullptr) {
    done = library_->multiply(stream, out, x.low, weight, padded, true);
  }
  return done;
}

}  // namespace penstock::llama::cuda
