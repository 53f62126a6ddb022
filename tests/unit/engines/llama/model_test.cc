// The model against numbers computed by PyTorch (tests/fixtures/make_llama_fixtures.py).
#include "worker/engines/llama/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/unit/engines/llama/fixtures.h"

namespace penstock::llama {
namespace {

struct Case {
  std::vector<int32_t> prompt;
  std::vector<float> logits_last;
  std::vector<int32_t> greedy;
};

std::vector<Case> read_cases(const std::string& path) {
  simdjson::dom::parser parser;
  std::vector<Case> cases;
  for (const auto entry : parser.load(path)["cases"].get_array()) {
    cases.push_back({numbers<int32_t>(entry["prompt"].value()),
                     numbers<float>(entry["logits_last"].value()),
                     numbers<int32_t>(entry["greedy"].value())});
  }
  return cases;
}

// One sequence in a cache of its own, advanced in pieces of any size.
class Sequence {
 public:
  Sequence(const std::string& folder, Backend& backend) {
    auto model = Model::open(folder, backend);
    if (!model) {
      ADD_FAILURE() << model.error().message;
      return;
    }
    model_ = std::make_unique<Model>(std::move(*model));
    cache_ = std::make_unique<KvCache>(*KvCache::create(model_->config(), 4 << 20, backend));
    blocks_ = cache_->take(cache_->blocks());
    std::reverse(blocks_.begin(), blocks_.end());
  }

  std::vector<float> feed(std::span<const int32_t> tokens) {
    const SequencePart part{tokens, position_, blocks_, true};
    position_ += static_cast<int32_t>(tokens.size());
    const auto logits = model_->forward(std::span(&part, 1), *cache_);
    return {logits->begin(), logits->end()};
  }

  Model& model() { return *model_; }

 private:
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> blocks_;
  int32_t position_ = 0;
};

int32_t best_of(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

void check_folder(const std::string& folder, const std::string& expected, Backend& backend) {
  for (const Case& c : read_cases(expected)) {
    Sequence sequence(folder, backend);
    std::vector<float> logits = sequence.feed(c.prompt);
    ASSERT_EQ(logits.size(), c.logits_last.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      ASSERT_NEAR(logits[i], c.logits_last[i], 1e-4F)
          << folder << ", " << backend.name() << ", token " << i;
    }
    for (size_t i = 0; i < c.greedy.size(); ++i) {
      const int32_t token = best_of(logits);
      ASSERT_EQ(token, c.greedy[i]) << folder << ", " << backend.name() << ", step " << i;
      logits = sequence.feed(std::span(&token, 1));
    }
  }
}

std::vector<std::unique_ptr<Backend>> backends() {
  std::vector<std::unique_ptr<Backend>> all;
  all.push_back(reference_backend());
  for (const CpuLevel level : {CpuLevel::kBaseline, CpuLevel::kAvx2, CpuLevel::kAvx512}) {
    if (level <= best_cpu_level()) {
      all.push_back(cpu_backend(1, level));
    }
  }
  all.push_back(cpu_backend(2));
  return all;
}

TEST(ModelTest, LogitsAndGreedyTokensEqualPyTorchOnEveryFixture) {
  ASSERT_FALSE(model_fixtures().empty());
  for (const auto& backend : backends()) {
    for (const std::string& folder : model_fixtures()) {
      check_folder(folder, folder + "/expected.json", *backend);
    }
  }
}

TEST(ModelTest, LogitsAndGreedyTokensEqualPyTorchOnTheDemoModel) {
  const auto backend = cpu_backend(1);
  check_folder(kDemo, kSource + "/tests/fixtures/llama/demo_expected.json", *backend);
}

TEST(ModelTest, PromptCutAnyWayGivesTheSameLogitsToTheBit) {
  const auto backend = cpu_backend(1);
  for (const std::string& folder : model_fixtures()) {
    const Case c = read_cases(folder + "/expected.json").back();
    const std::span<const int32_t> prompt = c.prompt;
    const std::vector<float> whole = Sequence(folder, *backend).feed(prompt);
    for (const size_t piece : {1, 2, 5, 7, 16, 17}) {
      Sequence sequence(folder, *backend);
      std::vector<float> logits;
      for (size_t at = 0; at < prompt.size(); at += piece) {
        logits = sequence.feed(prompt.subspan(at, std::min(piece, prompt.size() - at)));
      }
      ASSERT_EQ(logits, whole) << folder << " in pieces of " << piece;
    }
  }
}

TEST(ModelTest, SequencesInOneStepDoNotInfluenceOneAnother) {
  const auto backend = cpu_backend(2);
  const std::string folder = model_fixtures().front();
  const std::vector<Case> cases = read_cases(folder + "/expected.json");
  auto model = *Model::open(folder, *backend);
  auto cache = *KvCache::create(model.config(), 4 << 20, *backend);
  std::vector<std::vector<int32_t>> blocks;
  std::vector<SequencePart> parts;
  for (size_t i = 0; i < cases.size(); ++i) {
    blocks.push_back(cache.take(KvCache::blocks_for(static_cast<int64_t>(cases[i].prompt.size()))));
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    parts.push_back({cases[i].prompt, 0, blocks[i], i != 1});
  }
  const auto logits = *model.forward(parts, cache);
  const auto vocabulary = static_cast<size_t>(model.config().vocabulary);
  ASSERT_EQ(logits.size(), (parts.size() - 1) * vocabulary) << "only those that want them";
  size_t row = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    if (i == 1) {
      continue;
    }
    const auto got = logits.subspan(row++ * vocabulary, vocabulary);
    const std::vector<float> alone = Sequence(folder, *backend).feed(cases[i].prompt);
    ASSERT_TRUE(std::equal(got.begin(), got.end(), alone.begin())) << "case " << i;
  }
}

}  // namespace
}  // namespace penstock::llama
