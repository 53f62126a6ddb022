#include "worker/engines/llama/simd_baseline.h"
// The vector type must come first.
#include "worker/engines/llama/kernels_body.h"

namespace penstock::llama {

const Kernels& baseline_kernels() { return kKernels; }

}  // namespace penstock::llama
