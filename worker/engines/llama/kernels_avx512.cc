#include "worker/engines/llama/simd_avx512.h"
// The vector type must come first.
#include "worker/engines/llama/kernels_body.h"

namespace penstock::llama {

const Kernels& avx512_kernels() { return kKernels; }

}  // namespace penstock::llama
