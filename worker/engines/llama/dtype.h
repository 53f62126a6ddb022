// The number formats weights come in. Plain data only, no functions: this header is also compiled
// with wider instruction sets (kernels_*.cc), and an inline function from there could end up in
// code that runs everywhere.
#pragma once

#include <cstdint>

namespace penstock::llama {

enum class DType : uint8_t {
  kF32,   // IEEE 754 binary32
  kF16,   // IEEE 754 binary16
  kBF16,  // the upper half of a binary32 ("bfloat16")
};
constexpr int kDTypes = 3;

// Storage only; arithmetic is always done in float.
struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

// Tokens in one block of the key-value cache (kv_cache.h).
constexpr int64_t kBlockTokens = 16;

}  // namespace penstock::llama
