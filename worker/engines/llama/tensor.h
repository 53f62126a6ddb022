// A tensor here is data + shape + number format, nothing more: two dimensions, rows one after
// another, owned by someone else. A vector is one row. The data may lie in any memory its Backend
// (ops.h) can read.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "worker/engines/llama/dtype.h"

namespace penstock::llama {

constexpr int64_t bytes_of(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

inline float to_float(BF16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// Exact for every binary16, subnormals, infinities and NaNs included.
inline float to_float(F16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000U) << 16;
  const uint32_t rest = value.bits & 0x7FFFU;
  if (rest >= 0x7C00U) {
    return std::bit_cast<float>(sign | 0x7F800000U | (rest << 13));
  }
  // Placing the 15 bits in a binary32's fields gives the value times 2^-112, and a product by a
  // power of two is exact.
  const float magnitude = std::bit_cast<float>(rest << 13) * 0x1p112F;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
}

struct ConstTensor {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;

  bool empty() const { return data == nullptr; }
  int64_t count() const { return rows * cols; }
  int64_t bytes() const { return count() * bytes_of(dtype); }

  // REQUIRES: dtype == kF32 and the data lies in host memory.
  const float* f32() const { return reinterpret_cast<const float*>(data); }

  // One element as a float. REQUIRES: host memory. For references and tests.
  float at(int64_t row, int64_t col) const {
    const int64_t i = row * cols + col;
    switch (dtype) {
      case DType::kF32:
        return f32()[i];
      case DType::kF16:
        return to_float(reinterpret_cast<const F16*>(data)[i]);
      case DType::kBF16:
        return to_float(reinterpret_cast<const BF16*>(data)[i]);
    }
    return 0;
  }
};

struct Tensor {
  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;

  operator ConstTensor() const {
    return {data, dtype, rows, cols};
  }  // NOLINT(google-explicit-constructor)
  int64_t count() const { return rows * cols; }
  float* f32() const { return reinterpret_cast<float*>(data); }
};

}  // namespace penstock::llama
