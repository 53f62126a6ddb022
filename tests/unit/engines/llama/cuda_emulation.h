// Runs CUDA kernels without CUDA, so that what they compute can be tested everywhere.
//
// The .cu files are compiled as plain C++ behind this header (emulated_*.cc). A launch runs its
// blocks one after another; a block's threads are fibers, each of which runs until it meets a
// barrier or a warp operation, and goes on when all others have met it, too. The order they run in
// is shuffled by a seed, and warps run as far ahead of one another as they can: a kernel that lacks
// a barrier computes something else. A barrier that only some threads reach, or a warp operation
// that only some lanes reach, is counted. A launch that no device could start is refused, and told
// of by launched(). Device memory is the host's, exactly as large as asked for and full of NaN, so
// that a sanitizer sees who goes beyond it and a test who reads what was never written.
//
// What this cannot show: anything about speed, memory that is ordered weakly, or PTX.
#pragma once

#define PENSTOCK_CUDA_EMULATION 1

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>

#include "worker/engines/llama/cuda/cublaslt.h"
#include "worker/engines/llama/tensor.h"

struct dim3 {
  dim3(unsigned x_is = 1, unsigned y_is = 1, unsigned z_is = 1) : x(x_is), y(y_is), z(z_is) {}
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace penstock::llama::cuda::emulation {

// Whether use_device() finds a device. Off until a test wants it.
void answer(bool on);
// Whether others have all of its memory.
void fill(bool on);
// Of the order threads run in, from the next launch on.
void set_order(unsigned seed);
// Barriers or warp operations not met by all that had to, since the last call.
int broken_barriers();
// What a CublasLt would do, in plain loops.
std::unique_ptr<CublasLt> library();

void launch(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()>& kernel);
void block_barrier();
// Gives `value` to the warp and returns lane `from`'s.
uint64_t exchange(uint64_t value, int from);
std::byte* dynamic_shared();
inline int lane() { return static_cast<int>(threadIdx.x % 32); }

template <typename T>
T exchange_of(T value, int from) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(bits, from);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace penstock::llama::cuda::emulation

// ---- the language ------------------------------------------------------------------------------
// NOLINTBEGIN(bugprone-reserved-identifier,bugprone-macro-parentheses)

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)
#define PENSTOCK_UNROLL
#define PENSTOCK_DYNAMIC_SHARED(type, name) \
  auto* name = reinterpret_cast<type*>(::penstock::llama::cuda::emulation::dynamic_shared())
#define PENSTOCK_LAUNCH(kernel, grid, threads, shared_bytes, stream, ...) \
  (static_cast<void>(stream), ::penstock::llama::cuda::emulation::launch( \
                                  grid, threads, shared_bytes, [&] { kernel(__VA_ARGS__); }))

inline void __syncthreads() { penstock::llama::cuda::emulation::block_barrier(); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int step) {
  namespace emulation = penstock::llama::cuda::emulation;
  return emulation::exchange_of(value, emulation::lane() ^ step);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int step) {
  namespace emulation = penstock::llama::cuda::emulation;
  const int lane = emulation::lane();
  return emulation::exchange_of(value, lane >= step ? lane - step : lane);
}
template <typename T>
T __shfl_sync(unsigned, T value, int from) {
  return penstock::llama::cuda::emulation::exchange_of(value, from);
}
inline void __syncwarp() { __shfl_sync(~0U, 0, 0); }
inline unsigned __ballot_sync(unsigned, bool value) {
  unsigned all = value ? 1U << penstock::llama::cuda::emulation::lane() : 0;
  for (int step = 16; step > 0; step /= 2) {
    all |= __shfl_xor_sync(~0U, all, step);
  }
  return all;
}
// One thread runs at a time.
template <typename T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}
inline uint32_t atomicMin(uint32_t* at, uint32_t value) {
  return std::exchange(*at, value < *at ? value : *at);
}
inline uint32_t atomicMax(uint32_t* at, uint32_t value) {
  return std::exchange(*at, value > *at ? value : *at);
}
inline int __ffs(int value) { return __builtin_ffs(value); }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
template <typename T>
T __ldcs(const T* from) {
  return *from;
}

// NOLINTEND(bugprone-reserved-identifier,bugprone-macro-parentheses)

namespace penstock::llama::cuda {

inline int32_t min(int32_t a, int32_t b) { return a < b ? a : b; }

inline float widen(float v) { return v; }
inline float widen(BF16 v) { return to_float(v); }
inline float widen(F16 v) { return to_float(v); }
inline void narrow(float v, float& to) { to = v; }
// To the nearest, to the even one of two.
inline void narrow(float v, BF16& to) {
  const auto bits = std::bit_cast<uint32_t>(v);
  to.bits = static_cast<uint16_t>(v != v ? 0x7FFF : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline void narrow(float v, F16& to) {
  const auto bits = std::bit_cast<uint32_t>(v);
  const uint32_t size = bits & 0x7FFFFFFF;
  uint32_t half = 0;
  if (size > 0x7F800000) {
    half = 0x7E00;
  } else if (size < 0x38800000) {  // a subnormal: its unit, 2^-24, is that of the floats from 0.5
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(size) + 0.5F) - 0x3F000000;
  } else {
    const uint32_t rebased = size - (112U << 23);
    half = (rebased + 0xFFF + (rebased >> 13 & 1)) >> 13;
    half = half < 0x7C00 ? half : 0x7C00;
  }
  to.bits = static_cast<uint16_t>((bits >> 16 & 0x8000) | half);
}

}  // namespace penstock::llama::cuda
