// What every kernel needs: loads that widen to F32, stores that narrow, and sums over a warp or a
// block. Tests compile kernels without CUDA, for threads made of fibers
// (tests/unit/engines/llama/cuda_emulation.h, included first), which is why launches go through a
// macro.
#pragma once

#include <cstring>
#include <type_traits>

#include "worker/engines/llama/cuda/kernels.h"
#include "worker/engines/llama/cuda/plan.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define PENSTOCK_LAUNCH(kernel, grid, threads, shared_bytes, stream, ...) \
  kernel<<<grid, threads, shared_bytes, stream>>>(__VA_ARGS__)
#define PENSTOCK_DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]
#define PENSTOCK_UNROLL _Pragma("unroll")
#elif !defined(PENSTOCK_CUDA_EMULATION)
#error "compile with nvcc, or include tests/unit/engines/llama/cuda_emulation.h first"
#endif

namespace penstock::llama::cuda {
namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;
constexpr int kWarp = 32;

// Calls launch() with a value of the type that a DType names: launch([&]<typename T>(T) { ... }).
template <typename Launch>
void visit(DType dtype, const Launch& launch) {
  switch (dtype) {
    case DType::kF32:
      return launch(float{});
    case DType::kF16:
      return launch(F16{});
    case DType::kBF16:
      return launch(BF16{});
  }
}

// ---- numbers -----------------------------------------------------------------------------------

#ifdef __CUDACC__
__device__ inline float widen(float v) { return v; }
__device__ inline float widen(BF16 v) {
  return __uint_as_float(static_cast<uint32_t>(v.bits) << 16);
}
__device__ inline float widen(F16 v) { return __half2float(__ushort_as_half(v.bits)); }
__device__ inline void narrow(float v, float& to) { to = v; }
__device__ inline void narrow(float v, BF16& to) {
  to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(v));
}
__device__ inline void narrow(float v, F16& to) { to.bits = __half_as_ushort(__float2half_rn(v)); }
#endif

// Into F16 nothing overflows to infinity; NaN stays.
template <typename T>
__device__ inline T rounded(float v) {
  if constexpr (std::is_same_v<T, F16>) {
    constexpr float kLargest = 65504.0F;
    v = v > kLargest ? kLargest : v < -kLargest ? -kLargest : v;
  }
  T to;
  narrow(v, to);
  return to;
}

template <typename T>
__device__ inline void put_narrow(const Activation& out, int64_t i, float v) {
  const T high = rounded<T>(v);
  static_cast<T*>(out.high)[i] = high;
  if (out.low != nullptr) {
    static_cast<T*>(out.low)[i] = rounded<T>(v - widen(high));
  }
}

__device__ inline void put(const Activation& out, int64_t i, float v) {
  if (out.f32 != nullptr) {
    out.f32[i] = v;
  }
  if (out.high != nullptr) {
    if (out.narrow == DType::kF16) {
      put_narrow<F16>(out, i, v);
    } else {
      put_narrow<BF16>(out, i, v);
    }
  }
}

// ---- loads -------------------------------------------------------------------------------------

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Together {
  T values[kCount];
};

template <typename T, int kCount>
__device__ inline void widen_all(const Together<T, kCount>& from, float (&to)[kCount]) {
  PENSTOCK_UNROLL
  for (int i = 0; i < kCount; ++i) {
    to[i] = widen(from.values[i]);
  }
}

// kCount elements that lie side by side and are aligned to their size together, or to 16 bytes if
// that is more; 16 bytes a load at most.
template <typename T, int kCount>
__device__ inline void load(const T* from, float (&to)[kCount]) {
  constexpr int kPart = sizeof(T) * kCount > 16 ? 16 / sizeof(T) : kCount;
  PENSTOCK_UNROLL
  for (int at = 0; at < kCount; at += kPart) {
    const auto part = *reinterpret_cast<const Together<T, kPart>*>(from + at);
    PENSTOCK_UNROLL
    for (int i = 0; i < kPart; ++i) {
      to[at + i] = widen(part.values[i]);
    }
  }
}

// The same, not widened yet, of what is read once and need not stay in a cache.
template <typename T, int kCount>
__device__ inline Together<T, kCount> load_once(const T* from) {
  if constexpr (sizeof(Together<T, kCount>) == sizeof(uint4)) {
    const uint4 bits = __ldcs(reinterpret_cast<const uint4*>(from));
    Together<T, kCount> to;
    memcpy(&to, &bits, sizeof to);
    return to;
  } else {
    return *reinterpret_cast<const Together<T, kCount>*>(from);
  }
}

// ---- sums over a warp and a block --------------------------------------------------------------

template <typename T>
__device__ inline T warp_sum(T v) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    v += __shfl_xor_sync(kAllLanes, v, step);
  }
  return v;
}

__device__ inline float warp_max(float v) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, step));
  }
  return v;
}

// The sum over the block, known to every thread. `room` holds one value for each warp. REQUIRES:
// all threads call it, blockDim.x is a multiple of 32. `room` may be used again at once.
template <typename T>
__device__ inline T block_sum(T v, T* room) {
  v = warp_sum(v);
  __syncthreads();  // nobody still reads what the last call left
  if (threadIdx.x % kWarp == 0) {
    room[threadIdx.x / kWarp] = v;
  }
  __syncthreads();
  T sum = room[0];
  for (unsigned warp = 1; warp < blockDim.x / kWarp; ++warp) {
    sum += room[warp];
  }
  return sum;
}

}  // namespace
}  // namespace penstock::llama::cuda
