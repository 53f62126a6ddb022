// Sixteen floats in an AVX-512 register, for kernels_body.h. Needs AVX-512 F, BW, DQ and VL.
#pragma once

#include <immintrin.h>

#include "worker/engines/llama/dtype.h"

namespace penstock::llama {
namespace {

struct Simd {
  using Vec = __m512;
  static constexpr const char* kName = "cpu avx512";
  static constexpr int64_t kLanes = 16;
  static constexpr int kTileRows = 4;  // 24 sums, 4 weights, 1 activation of 32 registers
  static constexpr int kTileTokens = 6;

  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec broadcast(float value) { return _mm512_set1_ps(value); }

  static Vec load(const float* from) { return _mm512_loadu_ps(from); }
  static Vec load(const F16* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static Vec load(const BF16* from) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }

  // The first n < 16; the rest is zero and is not read.
  static Vec load_part(const float* from, int64_t n) {
    return _mm512_maskz_loadu_ps(first(n), from);
  }
  static Vec load_part(const F16* from, int64_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), from));
  }
  static Vec load_part(const BF16* from, int64_t n) {
    return widen(_mm256_maskz_loadu_epi16(first(n), from));
  }

  static void store(float* to, Vec v) { _mm512_storeu_ps(to, v); }
  static void store_part(float* to, Vec v, int64_t n) { _mm512_mask_storeu_ps(to, first(n), v); }

  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec multiply(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec divide(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  static Vec negate(Vec a) { return _mm512_sub_ps(_mm512_setzero_ps(), a); }
  static Vec max_of(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  static Vec min_of(Vec a, Vec b) { return _mm512_min_ps(a, b); }
  static Vec multiply_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static Vec round(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT); }
  static Vec scale_by_power_of_two(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }
  static float sum(Vec v) { return _mm512_reduce_add_ps(v); }

 private:
  static __mmask16 first(int64_t n) { return static_cast<__mmask16>((1U << n) - 1U); }
  static Vec widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
};

}  // namespace
}  // namespace penstock::llama
