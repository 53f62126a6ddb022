// Four floats in whatever registers the plain build has (SSE2, NEON, or none), for kernels_body.h.
#pragma once

#include "worker/engines/llama/tensor.h"

namespace penstock::llama {
namespace {

struct Simd {
  typedef float Vec __attribute__((vector_size(16)));
  typedef int32_t Ints __attribute__((vector_size(16)));
  static constexpr const char* kName = "cpu baseline";
  static constexpr int64_t kLanes = 4;
  static constexpr int kTileRows = 3;
  static constexpr int kTileTokens = 4;

  static Vec zero() { return Vec{}; }
  static Vec broadcast(float value) { return Vec{value, value, value, value}; }

  static Vec load(const float* from) {
    Vec v;
    __builtin_memcpy(&v, from, sizeof(v));
    return v;
  }
  static Vec load(const F16* from) {
    return Vec{to_float(from[0]), to_float(from[1]), to_float(from[2]), to_float(from[3])};
  }
  static Vec load(const BF16* from) {
    return Vec{to_float(from[0]), to_float(from[1]), to_float(from[2]), to_float(from[3])};
  }

  // The first n < 4; the rest is zero and is not read.
  template <typename W>
  static Vec load_part(const W* from, int64_t n) {
    W part[kLanes] = {};
    for (int64_t i = 0; i < n; ++i) {
      part[i] = from[i];
    }
    return load(part);
  }

  static void store(float* to, Vec v) { __builtin_memcpy(to, &v, sizeof(v)); }
  static void store_part(float* to, Vec v, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      to[i] = v[i];
    }
  }

  static Vec add(Vec a, Vec b) { return a + b; }
  static Vec multiply(Vec a, Vec b) { return a * b; }
  static Vec divide(Vec a, Vec b) { return a / b; }
  static Vec negate(Vec a) { return -a; }
  static Vec max_of(Vec a, Vec b) { return a > b ? a : b; }
  static Vec min_of(Vec a, Vec b) { return a < b ? a : b; }
  static Vec multiply_add(Vec a, Vec b, Vec c) { return a * b + c; }
  // REQUIRES: |a| < 2^22. Adding 1.5 * 2^23 leaves no bits for the fraction.
  static Vec round(Vec a) {
    const Vec magic = broadcast(12582912.0F);
    return (a + magic) - magic;
  }
  static Vec scale_by_power_of_two(Vec a, Vec n) {
    const Ints bits = (__builtin_convertvector(n, Ints) + 127) << 23;
    Vec power;
    __builtin_memcpy(&power, &bits, sizeof(power));
    return a * power;
  }
  static float sum(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
};

}  // namespace
}  // namespace penstock::llama
