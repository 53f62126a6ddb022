#include "shared/metrics/estimates.h"

#include "tests/unit/metrics/metrics_fixture.h"

namespace penstock::metrics {
namespace {

constexpr uint64_t kModel = 0x1234567890abcdef;

class EstimatesTest : public ::testing::Test {
 protected:
  void learn_often(uint64_t model, const Finished& request, int times) {
    for (int i = 0; i < times; ++i) {
      estimates_.learn(model, request);
    }
  }

  limit::SharedMemory memory_{Estimates::bytes()};
  Estimates estimates_ = *Estimates::create(memory_.bytes());
};

TEST_F(EstimatesTest, TellsOfAnUnknownModelWhatIsUsual) {
  const Estimate estimate = estimates_.of(kModel);
  EXPECT_EQ(estimate.bytes_per_token, 4);
  EXPECT_EQ(estimate.completion_tokens, 256);
  EXPECT_EQ(estimate.gpu_ms, 1000);
}

TEST_F(EstimatesTest, BelievesTheFirstRequest) {
  estimates_.learn(kModel, {300, 100, 50, 20});
  const Estimate estimate = estimates_.of(kModel);
  EXPECT_EQ(estimate.bytes_per_token, 3);
  EXPECT_EQ(estimate.completion_tokens, 50);
  EXPECT_EQ(estimate.gpu_ms, 20);
}

TEST_F(EstimatesTest, IsThePlainMeanOfAFewRequests) {
  for (const uint64_t tokens : {10, 20, 60}) {
    estimates_.learn(kModel, {.completion_tokens = tokens});
  }
  EXPECT_FLOAT_EQ(static_cast<float>(estimates_.of(kModel).completion_tokens), 30);
}

TEST_F(EstimatesTest, FollowsAChangeWithinSomeFiftyRequests) {
  learn_often(kModel, {.gpu_ms = 10'000}, 1000);
  learn_often(kModel, {.gpu_ms = 10}, 16);
  EXPECT_NEAR(estimates_.of(kModel).gpu_ms, 10'000 * 0.356, 50);  // (15/16)^16
  learn_often(kModel, {.gpu_ms = 10}, 100);
  EXPECT_NEAR(estimates_.of(kModel).gpu_ms, 10, 10);
}

TEST_F(EstimatesTest, LearnsNothingFromZeros) {
  estimates_.learn(kModel, {.prompt_bytes = 1000, .gpu_ms = 5});
  estimates_.learn(kModel, {});
  const Estimate estimate = estimates_.of(kModel);
  EXPECT_EQ(estimate.bytes_per_token, 4);
  EXPECT_EQ(estimate.completion_tokens, 256);
  EXPECT_EQ(estimate.gpu_ms, 5);
}

TEST_F(EstimatesTest, TakesOddRequestsForLess) {
  estimates_.learn(kModel, {UINT64_MAX, 1, UINT64_MAX, UINT64_MAX});
  Estimate estimate = estimates_.of(kModel);
  EXPECT_EQ(estimate.bytes_per_token, Estimates::kBytesPerToken[1]);
  EXPECT_EQ(estimate.completion_tokens, Estimates::kCompletionTokens[1]);
  EXPECT_EQ(estimate.gpu_ms, Estimates::kGpuMs[1]);
  estimates_.learn(kModel + 1, {1, UINT64_MAX, 1, 1});
  EXPECT_EQ(estimates_.of(kModel + 1).bytes_per_token, Estimates::kBytesPerToken[0]);
}

TEST_F(EstimatesTest, KeepsEightModelsOfOneSetApart) {
  for (uint64_t i = 0; i < Estimates::kWays; ++i) {
    estimates_.learn(kModel + i * Estimates::kSets, {.gpu_ms = i + 1});
  }
  for (uint64_t i = 0; i < Estimates::kWays; ++i) {
    EXPECT_EQ(estimates_.of(kModel + i * Estimates::kSets).gpu_ms, static_cast<double>(i + 1));
  }
}

TEST_F(EstimatesTest, ANinthOfASetStartsAnewInAnothersPlace) {
  for (uint64_t i = 0; i <= Estimates::kWays; ++i) {
    learn_often(kModel + i * Estimates::kSets, {.completion_tokens = 7, .gpu_ms = i + 1}, 5);
  }
  const uint64_t ninth = kModel + Estimates::kWays * Estimates::kSets;
  EXPECT_EQ(estimates_.of(ninth).gpu_ms, 9);
  EXPECT_EQ(estimates_.of(ninth).bytes_per_token, 4);
}

TEST_F(EstimatesTest, TakesAHashOfZero) {
  estimates_.learn(0, {.gpu_ms = 5});
  EXPECT_EQ(estimates_.of(0).gpu_ms, 5);
}

TEST_F(EstimatesTest, IsFoundAgain) {
  estimates_.learn(kModel, {.gpu_ms = 5});
  const auto again = Estimates::attach(memory_.bytes());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->of(kModel).gpu_ms, 5);
  EXPECT_FALSE(Estimates::attach(memory_.bytes().first(64)));
}

TEST(NoEstimatesTest, LearnNothingAndTellWhatIsUsual) {
  Estimates none;
  none.learn(kModel, {.gpu_ms = 5});
  EXPECT_EQ(none.of(kModel).gpu_ms, 1000);
}

}  // namespace
}  // namespace penstock::metrics
