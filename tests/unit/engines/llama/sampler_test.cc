#include "worker/engines/llama/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace penstock::llama {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<double> frequencies(const std::vector<float>& logits, const Sampling& sampling,
                                int draws) {
  std::vector<double> counts(logits.size());
  for (int i = 0; i < draws; ++i) {
    counts[*sample(logits, sampling, uniform(sampling.seed, i))] += 1.0 / draws;
  }
  return counts;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double total = 0;
  for (const float l : logits) {
    p.push_back(std::exp(l / temperature));
    total += p.back();
  }
  for (double& x : p) {
    x /= total;
  }
  return p;
}

TEST(SamplerTest, TemperatureZeroTakesTheLargestAndTheFirstOfEquals) {
  EXPECT_EQ(sample(std::vector<float>{1, 3, 2, 3}, {0, 1, 0}, 0.99), 1);
  EXPECT_EQ(sample(std::vector<float>{-5}, {0, 1, 0}, 0.5), 0);
}

TEST(SamplerTest, DrawsFollowTheSoftmaxAtAnyTemperature) {
  const std::vector<float> logits = {0.5F, -1, 2, 1.5F, 0, -kInfinity};
  for (const float temperature : {0.3F, 1.0F, 2.0F}) {
    const auto got = frequencies(logits, {temperature, 1, 42}, 200'000);
    const auto expected = softmax(logits, temperature);
    for (size_t i = 0; i < logits.size(); ++i) {
      EXPECT_NEAR(got[i], expected[i], 0.005) << "token " << i << " at " << temperature;
    }
  }
}

TEST(SamplerTest, TopPKeepsTheFewestThatReachItAndTheirProportions) {
  const std::vector<float> logits = {std::log(0.1F), std::log(0.4F), std::log(0.3F),
                                     std::log(0.2F)};
  const auto got = frequencies(logits, {1, 0.65F, 9}, 200'000);
  EXPECT_EQ(got[0], 0);
  EXPECT_EQ(got[3], 0);
  EXPECT_NEAR(got[1], 4.0 / 7, 0.005);
  EXPECT_NEAR(got[2], 3.0 / 7, 0.005);
  EXPECT_EQ(frequencies(logits, {1, 1e-6F, 9}, 1)[1], 1) << "at least one is always kept";
}

TEST(SamplerTest, TopKKeepsTheLikeliestThatManyAndLessIfTopPWantsLess) {
  const std::vector<float> logits = {std::log(0.1F), std::log(0.4F), std::log(0.3F),
                                     std::log(0.2F)};
  const auto two = frequencies(logits, {.temperature = 1, .seed = 9, .top_k = 2}, 200'000);
  EXPECT_NEAR(two[1], 4.0 / 7, 0.005);
  EXPECT_NEAR(two[2], 3.0 / 7, 0.005);
  EXPECT_EQ(two[0] + two[3], 0);
  const auto one =
      frequencies(logits, {.temperature = 1, .top_p = 0.3F, .seed = 9, .top_k = 3}, 1000);
  EXPECT_NEAR(one[1], 1, 1e-9);
  EXPECT_GT(frequencies(logits, {.temperature = 1, .seed = 9, .top_k = 99}, 1000)[0], 0)
      << "more than there are is all of them";
}

TEST(SamplerTest, TopPOverALargeFlatVocabularyKeepsItsShare) {
  std::vector<float> logits(1000);
  std::mt19937 random(1);
  for (float& l : logits) {
    l = std::normal_distribution<float>(0, 1e-3F)(random);
  }
  std::vector<bool> seen(logits.size());
  for (int i = 0; i < 20'000; ++i) {
    seen[*sample(logits, {1, 0.5F, 5}, uniform(5, i))] = true;
  }
  EXPECT_NEAR(std::count(seen.begin(), seen.end(), true), 500, 5);
}

TEST(SamplerTest, RowsPastTheTokenizerAreNeverDrawnWhateverTheirLogits) {
  const std::vector<float> logits = {0, 1, 50, kInfinity, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_EQ(sample(logits, {.temperature = 0, .below = 2}, 0.5), 1);
  const auto got = frequencies(logits, {.temperature = 2, .seed = 3, .below = 2}, 1000);
  EXPECT_GT(got[0], 0);
  EXPECT_NEAR(got[0] + got[1], 1, 1e-9);
}

TEST(SamplerTest, TheSameSeedAndIndexGiveTheSameNumberAndOthersDiffer) {
  EXPECT_EQ(uniform(7, 3), uniform(7, 3));
  EXPECT_NE(uniform(7, 3), uniform(7, 4));
  EXPECT_NE(uniform(7, 3), uniform(8, 3));
  double mean = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double u = uniform(1, i);
    ASSERT_TRUE(u >= 0 && u < 1);
    mean += u / 100'000;
  }
  EXPECT_NEAR(mean, 0.5, 0.005);
}

TEST(SamplerTest, NumbersThatAreNoneAreReportedNotDrawn) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
    EXPECT_EQ(sample(std::vector<float>{1, bad, 2}, {0, 1, 0}, 0), std::nullopt);
    EXPECT_EQ(sample(std::vector<float>{1, bad, 2}, {1, 0.5F, 0}, 0), std::nullopt);
  }
  EXPECT_EQ(sample(std::vector<float>{-kInfinity, -kInfinity}, {1, 1, 0}, 0), std::nullopt);
}

TEST(SamplerTest, MinPLeavesOutWhatIsLessLikelyThanThatShareOfTheLikeliest) {
  const std::vector<float> logits = {std::log(0.1F), std::log(0.4F), std::log(0.3F),
                                     std::log(0.2F)};
  const auto half = frequencies(logits, {.temperature = 1, .seed = 9, .min_p = 0.6F}, 200'000);
  EXPECT_NEAR(half[1], 4.0 / 7, 0.005);
  EXPECT_NEAR(half[2], 3.0 / 7, 0.005);
  EXPECT_EQ(half[0] + half[3], 0);
  const auto warm = frequencies(logits, {.temperature = 2, .seed = 9, .min_p = 0.6F}, 1000);
  EXPECT_GT(warm[3], 0) << "of the probabilities at this temperature: 0.707";
  EXPECT_EQ(warm[0], 0);
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .seed = 9, .min_p = 1}, 1000)[1] > 0.999, true);
  const auto narrow =
      frequencies(logits, {.temperature = 1, .top_p = 0.65F, .seed = 9, .min_p = 0.1F}, 1000);
  EXPECT_EQ(narrow[0] + narrow[3], 0) << "the narrowest bound counts";
}

TEST(SamplerTest, WhatIsLeftIsDrawnInOrderOfIdsWhateverTheBounds) {
  const std::vector<float> logits = {std::log(0.1F), std::log(0.2F), std::log(0.3F),
                                     std::log(0.4F)};
  for (const Sampling& bounds :
       {Sampling{.top_p = 0.85F}, Sampling{.top_k = 3}, Sampling{.min_p = 0.4F}}) {
    EXPECT_EQ(sample(logits, bounds, 0), 1);
    EXPECT_EQ(sample(logits, bounds, 0.5), 2);
    EXPECT_EQ(sample(logits, bounds, 0.99), 3);
  }
}

TEST(SamplerTest, AnEditPenalisesThenAdds) {
  std::vector<float> logits = {2, -2, 0.5F, 1};
  edit(std::vector<LogitEdit>{{.token = 0, .penalty = 2},
                              {.token = 1, .penalty = 2},
                              {.token = 2, .penalty = 0.5F, .add = -3}},
       logits);
  EXPECT_EQ(logits, (std::vector<float>{1, -4, -2, 1}));
}

TEST(SamplerTest, ALogprobIsThatOfTheSoftmaxOverAllThereIsToDraw) {
  const std::vector<float> logits = {0.5F, -1, 2, 1.5F};
  const auto p = softmax(logits, 1);
  EXPECT_NEAR(logprob_of(logits, 3, 0), std::log(p[3]), 1e-6);
  const auto q = softmax({0.5F, -1, 2}, 1);
  EXPECT_NEAR(logprob_of(logits, 1, 3), std::log(q[1]), 1e-6);
}

}  // namespace
}  // namespace penstock::llama
