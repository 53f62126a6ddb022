#include "worker/engines/llama/cuda/matmul.h"

#include "worker/engines/llama/cuda/plan.h"

namespace penstock::llama::cuda {

bool Matmul::by_library(const Matrix& weight, int64_t rows) {
  return rows > kGemvRows && library_ != nullptr && library_->can(weight, padded(rows));
}

Matmul::Matmul(std::unique_ptr<CublasLt> library, bool exact)
    : library_(std::move(library)), exact_(exact) {
  if (library_ == nullptr) {
    slow_ = "cuBLASLt is not used: prompts, and more than " + std::to_string(kGemvRows) +
            " answers at once, are slow";
  }
}

int64_t Matmul::padded(int64_t rows) {
  return round_up(rows, rows <= 64 ? 16 : rows <= 256 ? 32 : 128);
}

Status Matmul::prepare(CUstream_st* stream, float* out, const ActivationRoom& room,
                       const Matrix& weight, int64_t most) {
  for (int64_t rows = padded(kGemvRows + 1); library_ != nullptr && rows <= padded(most);
       rows = padded(rows + 1)) {
    if (!library_->can(weight, rows)) {
      slow_ = "cuBLASLt has no product of " + std::to_string(rows) + " rows with [" +
              std::to_string(weight.rows) + ", " + std::to_string(weight.cols) +
              "]: those are slow";
      continue;
    }
    const void* x = weight.dtype == DType::kF32 ? room.f32 : room.high;
    Status done = library_->multiply(stream, out, x, weight, rows, false);
    if (!done) {
      return done;
    }
  }
  return Ok{};
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
  const int64_t all = padded(rows);
  const void* first = weight.dtype == DType::kF32 ? x.f32 : x.high;
  Status done = library_->multiply(stream, out, first, weight, all, false);
  if (done && x.low != nullptr) {
    done = library_->multiply(stream, out, x.low, weight, all, true);
  }
  return done;
}

}  // namespace penstock::llama::cuda
