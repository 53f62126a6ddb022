// Eight floats in an AVX register, for kernels_body.h. Needs AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include "worker/engines/llama/dtype.h"

namespace penstock::llama {
namespace {

struct Simd {
  using Vec = __m256;
  static constexpr const char* kName = "cpu avx2";
  static constexpr int64_t kLanes = 8;
  static constexpr int kTileRows = 3;  // 12 sums, 3 weights, 1 activation: all 16 registers
  static constexpr int kTileTokens = 4;

  static Vec zero() { return _mm256_setzero_ps(); }
  static Vec broadcast(float value) { return _mm256_set1_ps(value); }

  static Vec load(const float* from) { return _mm256_loadu_ps(from); }
  static Vec load(const F16* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Vec load(const BF16* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }

  // The first n < 8; the rest is zero and is not read.
  template <typename W>
  static Vec load_part(const W* from, int64_t n) {
    W part[kLanes] = {};
    for (int64_t i = 0; i < n; ++i) {
      part[i] = from[i];
    }
    return load(part);
  }

  static void store(float* to, Vec v) { _mm256_storeu_ps(to, v); }
  static void store_part(float* to, Vec v, int64_t n) {
    if (n == kLanes) {
      return store(to, v);
    }
    float part[kLanes];
    store(part, v);
    for (int64_t i = 0; i < n; ++i) {
      to[i] = part[i];
    }
  }

  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec multiply(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec divide(Vec a, Vec b) { return _mm256_div_ps(a, b); }
  static Vec negate(Vec a) { return _mm256_sub_ps(_mm256_setzero_ps(), a); }
  static Vec max_of(Vec a, Vec b) { return _mm256_max_ps(a, b); }
  static Vec min_of(Vec a, Vec b) { return _mm256_min_ps(a, b); }
  static Vec multiply_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static Vec round(Vec a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static Vec scale_by_power_of_two(Vec a, Vec n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
  }
  static float sum(Vec v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
  }
};

}  // namespace
}  // namespace penstock::llama
