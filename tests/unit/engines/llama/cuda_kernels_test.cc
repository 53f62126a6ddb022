// The CUDA kernels, run by threads that are fibers, against their references.
#include <gtest/gtest.h>

#include "tests/unit/engines/llama/cuda_emulation.h"
#include "tests/unit/engines/llama/kernel_checks.h"
#include "worker/engines/llama/cuda/runtime.h"

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

TEST(CudaEmulationTest, ALaunchThatNoDeviceCouldStartIsToldOfOnce) {
  const auto launched_with = [](dim3 grid, unsigned threads, size_t shared) {
    emulation::launch(grid, threads, shared, [] {});
    return static_cast<bool>(launched());
  };
  EXPECT_TRUE(launched_with({1, 2, 3}, 32, 48 << 10));
  EXPECT_FALSE(launched_with({0, 1, 1}, 32, 0));
  EXPECT_FALSE(launched_with({1, 65536, 1}, 32, 0));
  EXPECT_FALSE(launched_with({1, 1, 65536}, 32, 0));
  EXPECT_FALSE(launched_with({1, 1, 1}, 1025, 0));
  EXPECT_FALSE(launched_with({1, 1, 1}, 32, (48 << 10) + 1));
  EXPECT_TRUE(launched());
}

INSTANTIATE_TEST_SUITE_P(Orders, CudaKernelsTest, testing::Values(1U, 2U));

}  // namespace
}  // namespace penstock::llama::cuda
