#include "worker/engines/llama/token_edits.h"

#include <gtest/gtest.h>

#include <map>

namespace penstock::llama {
namespace {

// What is done to a token: its penalty, and what is added.
using Edits = std::map<int32_t, std::pair<float, float>>;
Edits seen(const TokenEdits& edits) {
  Edits all;
  for (const LogitEdit& each : edits.now()) {
    EXPECT_TRUE(all.emplace(each.token, std::pair(each.penalty, each.add)).second) << "twice";
  }
  return all;
}

TEST(TokenEditsTest, ARequestThatAsksForNoneHasNone) {
  TokenEdits edits({}, std::vector<int32_t>{1, 2}, {}, std::vector<int32_t>{0});
  edits.drawn(5);
  EXPECT_TRUE(edits.now().empty());
}

TEST(TokenEditsTest, TheRepetitionPenaltyIsForPromptAndAnswer) {
  TokenEdits edits({.repetition_penalty = 1.5F}, std::vector<int32_t>{7, 7, 8}, {}, {});
  EXPECT_EQ(seen(edits), (Edits{{7, {1.5F, 0.F}}, {8, {1.5F, 0.F}}}));
  edits.drawn(9);
  edits.drawn(7);
  EXPECT_EQ(seen(edits), (Edits{{7, {1.5F, 0.F}}, {8, {1.5F, 0.F}}, {9, {1.5F, 0.F}}}));
}

TEST(TokenEditsTest, ThePresencePenaltyComesOnceTheFrequencyPenaltyWithEach) {
  TokenEdits edits({.presence_penalty = 1, .frequency_penalty = 0.25F}, std::vector<int32_t>{7}, {},
                   {});
  EXPECT_TRUE(edits.now().empty()) << "the prompt has no part in them";
  edits.drawn(7);
  edits.drawn(7);
  edits.drawn(3);
  EXPECT_EQ(seen(edits), (Edits{{7, {1.F, -1.5F}}, {3, {1.F, -1.25F}}}));
}

TEST(TokenEditsTest, BiasesAddToWhatElseIsDone) {
  const std::vector<openai::TokenBias> biases = {{4, 2.5F}, {5, -100}};
  TokenEdits edits({.repetition_penalty = 2, .frequency_penalty = 1}, std::vector<int32_t>{4},
                   biases, {});
  EXPECT_EQ(seen(edits), (Edits{{4, {2.F, 2.5F}}, {5, {1.F, -100.F}}}));
  edits.drawn(4);
  EXPECT_EQ(seen(edits).at(4), (std::pair(2.F, 1.5F)));
}

TEST(TokenEditsTest, EndsAreBannedUntilThereAreMinTokensAndNoLonger) {
  const std::vector<openai::TokenBias> biases = {{0, 3}};
  TokenEdits edits({.min_tokens = 2}, {}, biases, std::vector<int32_t>{0, 9, 0});
  EXPECT_LT(seen(edits).at(0).second, -1e8F);
  EXPECT_LT(seen(edits).at(9).second, -1e8F);
  edits.drawn(5);
  EXPECT_LT(seen(edits).at(9).second, -1e8F);
  edits.drawn(5);
  EXPECT_EQ(seen(edits).at(0).second, 3);
  EXPECT_EQ(seen(edits).at(9).second, 0);
}

}  // namespace
}  // namespace penstock::llama
