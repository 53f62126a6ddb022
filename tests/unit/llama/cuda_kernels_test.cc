// The CUDA kernels, run by threads that are fibers, against their references.
#include <gtest/gtest.h>

#include "tests/unit/llama/cuda_emulation.h"
#include "tests/unit/llama/kernel_checks.h"

namespace penstock::llama::cuda {
namespace {

class CudaKernelsTest : public testing::TestWithParam<unsigned> {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "fibers confuse the thread sanitizer";
#endif
    emulation::set_order(GetParam());
    emulation::broken_barriers();
  }
};

TEST_P(CudaKernelsTest, EqualTheirReferencesInWhateverOrderThreadsRun) {
  for (const CheckResult& result : run_kernel_checks(false, 11)) {
    EXPECT_TRUE(result.passed()) << result.name << ": worst " << result.worst << " of "
                                 << result.numbers << ", allowed " << result.tolerance << "; "
                                 << result.failure;
  }
  EXPECT_EQ(emulation::broken_barriers(), 0);
}

INSTANTIATE_TEST_SUITE_P(Orders, CudaKernelsTest, testing::Values(1U, 2U));

}  // namespace
}  // namespace penstock::llama::cuda
