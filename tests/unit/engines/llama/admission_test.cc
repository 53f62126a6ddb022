#include "worker/engines/llama/admission.h"

#include <gtest/gtest.h>

#include "worker/engines/llama/kv_cache.h"

namespace penstock::llama {
namespace {

std::variant<int64_t, Failure> answer_tokens(int64_t prompt_tokens,
                                             std::optional<uint32_t> max_tokens, bool chat,
                                             const Limits& limits) {
  return answer_tokens(prompt_tokens, {.chat = chat, .max_tokens = max_tokens}, limits);
}

TEST(AdmissionTest, CompletionsDefaultToSixteenAndChatToWhatIsLeftOfAShortContext) {
  const Limits limits{100, 1000};
  EXPECT_EQ(std::get<int64_t>(answer_tokens(10, std::nullopt, false, limits)), 16);
  EXPECT_EQ(std::get<int64_t>(answer_tokens(90, std::nullopt, false, limits)), 10);
  EXPECT_EQ(std::get<int64_t>(answer_tokens(10, std::nullopt, true, limits)), 90);
  EXPECT_EQ(std::get<int64_t>(answer_tokens(10, std::nullopt, true, {100, 32})), 22);
}

TEST(AdmissionTest, AChatThatGivesNoLengthIsBoundedInALongContext) {
  const Limits limits{131072, 1 << 20};
  EXPECT_EQ(std::get<int64_t>(answer_tokens(10, std::nullopt, true, limits)), 4096);
  EXPECT_EQ(std::get<int64_t>(answer_tokens(131000, std::nullopt, true, limits)), 72);
  EXPECT_EQ(std::get<int64_t>(answer_tokens(10, 100'000, true, limits)), 100'000);
  EXPECT_EQ(std::get<int64_t>(answer_tokens(10, std::nullopt, true, {131072, 1 << 20, 7})), 7);
  const auto least = [&](bool chat, uint32_t min_tokens) {
    return std::get<int64_t>(answer_tokens(10, {.chat = chat, .min_tokens = min_tokens}, limits));
  };
  EXPECT_EQ(least(true, 5000), 5000) << "no answer may end before that";
  EXPECT_EQ(least(false, 40), 40);
  EXPECT_EQ(least(true, 200'000), 131062);
}

TEST(AdmissionTest, ExactlyFullIsAdmittedAndOneMoreIsNot) {
  const Limits limits{100, 1000};
  EXPECT_EQ(std::get<int64_t>(answer_tokens(60, 40, false, limits)), 40);
  const auto refused = std::get<Failure>(answer_tokens(60, 41, false, limits));
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.code, "context_length_exceeded");
  EXPECT_EQ(refused.param, "prompt");
  EXPECT_FALSE(refused.retryable);
  for (const char* number :
       {"100 tokens", "requested 101", "60 in the prompt", "41 in the completion"}) {
    EXPECT_NE(refused.message.find(number), std::string::npos) << refused.message;
  }
}

TEST(AdmissionTest, WhereMaxTokensAloneTakesAllItIsToBeLowered) {
  for (const bool chat : {false, true}) {
    const auto refused = std::get<Failure>(answer_tokens(7, 100'000, chat, {2048, 4096}));
    EXPECT_EQ(refused.status, 400);
    EXPECT_EQ(refused.code, "context_length_exceeded");
    EXPECT_EQ(refused.param, "max_tokens");
    for (const char* said : {"length is 2048 tokens", "is 100000.", "The prompt has 7",
                             "lower max_tokens to 2041 or less."}) {
      EXPECT_NE(refused.message.find(said), std::string::npos) << refused.message;
    }
  }
  EXPECT_EQ(std::get<Failure>(answer_tokens(1, 100, true, {100, 1000})).param, "max_tokens");
  EXPECT_EQ(std::get<Failure>(answer_tokens(2, 99, true, {100, 1000})).param, "messages");
  EXPECT_EQ(std::get<Failure>(answer_tokens(100, 100, true, {100, 1000})).param, "messages");
}

TEST(AdmissionTest, ABoundOfThePromptIsSaidToBeOne) {
  const Limits limits{100, 1000};
  EXPECT_FALSE(cannot_fit(99, {.max_tokens = 500}, limits)) << "how many it has is not known yet";
  const auto refused = cannot_fit(100, {.max_tokens = 5}, limits);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->param, "prompt");
  EXPECT_NE(refused->message.find("requested at least 105 tokens (at least 100 in the prompt, 5"),
            std::string::npos)
      << refused->message;
}

TEST(AdmissionTest, ARequestLargerThanTheWholeCacheSaysSo) {
  const auto refused = std::get<Failure>(answer_tokens(60, 41, true, {1000, 96}));
  EXPECT_EQ(refused.param, "messages");
  EXPECT_NE(refused.message.find("holds at most 96 tokens"), std::string::npos) << refused.message;
  EXPECT_TRUE(std::holds_alternative<Failure>(answer_tokens(96, std::nullopt, true, {1000, 96})));
  EXPECT_TRUE(std::holds_alternative<Failure>(answer_tokens(0, UINT32_MAX, true, {1000, 96})));
}

TEST(KvCacheTest, BlocksAreTakenWholeOrNotAtAllAndComeBack) {
  const auto backend = cpu_backend(1);
  ModelConfig config;
  config.layers = 3;
  config.kv_heads = 2;
  config.head_dim = 8;
  const int64_t block = 2 * 3 * 2 * 8 * 16 * 4;
  EXPECT_FALSE(KvCache::create(config, block - 1, *backend));
  auto cache = *KvCache::create(config, 10 * block + block / 2, *backend);
  EXPECT_EQ(cache.block_bytes(), block);
  EXPECT_EQ(cache.blocks(), 10);
  const auto six = cache.take(6);
  EXPECT_EQ(six.size(), 6U);
  EXPECT_TRUE(cache.take(5).empty());
  EXPECT_EQ(cache.free_blocks(), 4);
  const auto four = cache.take(4);
  for (const int32_t b : four) {
    EXPECT_EQ(std::count(six.begin(), six.end(), b), 0) << "a block has two owners";
  }
  cache.give_back(six);
  EXPECT_EQ(cache.free_blocks(), 6);
  EXPECT_EQ(KvCache::blocks_for(16), 1);
  EXPECT_EQ(KvCache::blocks_for(17), 2);
}

}  // namespace
}  // namespace penstock::llama
