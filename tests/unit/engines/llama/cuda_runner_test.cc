// The CUDA engine whole, on an emulated device: against PyTorch's numbers, against the CPU engine,
// and in what it does when a device is not there or has too little.
#include "worker/engines/llama/cuda/runner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "tests/unit/engines/llama/cuda_emulation.h"
#include "tests/unit/engines/llama/fixtures.h"
#include "worker/engines/llama/cpu_runner.h"
#include "worker/engines/llama/cuda/open.h"
#include "worker/engines/llama/device.h"
#include "worker/engines/llama/engine.h"

namespace penstock::llama::cuda {
namespace {

const std::string kGrouped = kSource + "/tests/fixtures/llama/bf16_grouped";

class CudaRunnerTest : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "fibers confuse the thread sanitizer";
#endif
    emulation::answer(true);
    emulation::set_order(5);
    emulation::broken_barriers();
  }
  void TearDown() override {
    emulation::answer(false);
    EXPECT_EQ(emulation::broken_barriers(), 0);
  }

  std::unique_ptr<CudaRunner> open(const std::string& folder, CudaOptions options,
                                   bool with_library = false) {
    options.max_parts = options.max_parts == 0 ? 4 : options.max_parts;
    options.prefill_tokens = options.prefill_tokens == 0 ? 32 : options.prefill_tokens;
    auto runner = CudaRunner::make(*load_model(folder), *use_device(0),
                                   with_library ? emulation::library() : nullptr, options);
    EXPECT_TRUE(runner) << runner.error().message;
    return runner ? std::move(*runner) : nullptr;
  }
};

struct Case {
  std::vector<int32_t> prompt;
  std::vector<float> logits;
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

// Feeds a sequence to a runner and takes what it draws.
class Sequence {
 public:
  Sequence(Runner& runner, int64_t tokens)
      : runner_(runner), blocks_(runner.blocks().take(BlockPool::blocks_for(tokens))) {}
  ~Sequence() { runner_.blocks().give_back(blocks_); }
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  SequencePart part(std::span<const int32_t> tokens, bool wants) {
    const SequencePart part{tokens, position_, blocks_, wants, {.temperature = 0}};
    position_ += static_cast<int32_t>(tokens.size());
    return part;
  }
  int32_t feed(std::span<const int32_t> tokens) {
    const SequencePart one = part(tokens, true);
    const auto drawn = runner_.step(std::span(&one, 1));
    EXPECT_TRUE(drawn) << drawn.error().message;
    return (*drawn)[0];
  }

 private:
  Runner& runner_;
  std::vector<int32_t> blocks_;
  int32_t position_ = 0;
};

double worst_of(const std::vector<float>& got, const std::vector<float>& expected) {
  EXPECT_EQ(got.size(), expected.size());
  double worst = 0;
  for (size_t i = 0; i < std::min(got.size(), expected.size()); ++i) {
    const double off = std::fabs(static_cast<double>(got[i]) - expected[i]);
    worst = off <= worst ? worst : off;
  }
  return worst;
}

TEST_F(CudaRunnerTest, ExactGreedyTokensAndLogitsEqualPyTorchOnEveryFixture) {
  for (const std::string& folder : model_fixtures()) {
    const auto runner = open(folder, {.exact = true});
    ASSERT_EQ(runner->graphs(), 3) << "1, 2 and 4 rows";
    for (const Case& c : read_cases(folder + "/expected.json")) {
      Sequence sequence(*runner, static_cast<int64_t>(c.prompt.size() + c.greedy.size()));
      int32_t token = sequence.feed(c.prompt);
      EXPECT_LT(worst_of(*runner->last_logits(), c.logits), 1e-3) << folder;
      for (size_t i = 0; i < c.greedy.size(); ++i) {
        ASSERT_EQ(token, c.greedy[i]) << folder << ", step " << i;
        token = sequence.feed(std::span(&token, 1));
      }
    }
  }
}

// Rounded as it is served: the cache and what goes into a product have the weights' dtype.
TEST_F(CudaRunnerTest, RoundedLogitsStayNearPyTorchsOnEveryFixture) {
  for (const std::string& folder : model_fixtures()) {
    for (const bool with_library : {false, true}) {
      const auto runner = open(folder, {.sleeps = with_library, .graphs = false}, with_library);
      const Case c = read_cases(folder + "/expected.json").back();
      Sequence sequence(*runner, static_cast<int64_t>(c.prompt.size()));
      sequence.feed(c.prompt);
      double size = 0;
      for (const float logit : c.logits) {
        size = std::max(size, std::fabs(static_cast<double>(logit)));
      }
      EXPECT_LT(worst_of(*runner->last_logits(), c.logits), 0.03 * size)
          << folder << (with_library ? ", library" : "");
    }
  }
}

TEST_F(CudaRunnerTest, WhatRoundingLosesIsAddedBackWhenItIsToBeExact) {
  const Case c = read_cases(kGrouped + "/expected.json").back();
  const auto logits_of = [&](bool exact) {
    const auto runner = open(kGrouped, {.exact = exact, .graphs = false}, true);
    Sequence sequence(*runner, static_cast<int64_t>(c.prompt.size()));
    sequence.feed(c.prompt);
    return worst_of(*runner->last_logits(), c.logits);
  };
  ASSERT_GT(c.prompt.size(), static_cast<size_t>(kGemvRows)) << "or the library has nothing to do";
  EXPECT_LT(logits_of(true), 1e-3);
  EXPECT_GT(logits_of(false), logits_of(true)) << "or nothing was rounded";
}

TEST_F(CudaRunnerTest, PromptsInPiecesBesideOthersDrawWhatTheyDrawAlone) {
  const std::vector<Case> cases = read_cases(kGrouped + "/expected.json");
  const auto runner = open(kGrouped, {.exact = true});
  const Case& first = cases.front();
  const Case& last = cases.back();
  ASSERT_GT(last.prompt.size(), 6U);
  Sequence decoding(*runner, static_cast<int64_t>(first.prompt.size()) + 16);
  int32_t token = decoding.feed(first.prompt);
  Sequence reading(*runner, static_cast<int64_t>(last.prompt.size()) + 16);
  const std::span<const int32_t> prompt = last.prompt;
  size_t step = 0;
  for (size_t at = 0; at < prompt.size(); at += 3) {  // two rows of a tile, and one
    const size_t some = std::min<size_t>(3, prompt.size() - at);
    ASSERT_EQ(token, first.greedy[step++]);
    const int32_t fed = token;
    const SequencePart parts[] = {
        decoding.part(std::span(&fed, 1), true),
        reading.part(prompt.subspan(at, some), at + some == prompt.size())};
    const auto drawn = *runner->step(parts);
    ASSERT_EQ(drawn.size(), at + some == prompt.size() ? 2U : 1U);
    token = drawn[0];
    if (drawn.size() == 2) {
      EXPECT_EQ(drawn[1], last.greedy[0]);
    }
    if (step == first.greedy.size()) {
      break;
    }
  }
}

TEST_F(CudaRunnerTest, StaleBlocksOfAnotherSequenceAreNeverLookedAt) {
  const Case c = read_cases(kGrouped + "/expected.json").back();
  const auto runner = open(kGrouped, {.exact = true});
  for (int round = 0; round < 3; ++round) {  // each in the blocks the last one gave back
    Sequence sequence(*runner, static_cast<int64_t>(c.prompt.size()) + 1);
    EXPECT_EQ(sequence.feed(c.prompt), c.greedy[0]);
    sequence.feed(std::span(c.greedy).first(1));
  }
}

class NoSink final : public Sink {
 public:
  void head(JobNumber, int, std::string_view, int64_t, std::string_view) override {}
  void chunk(JobNumber job, std::string_view bytes) override { texts[job] += bytes; }
  void progress(JobNumber, double, uint32_t, uint32_t) override {}
  void done(JobNumber job, const Usage& usage) override { used[job] = usage; }
  void failed(JobNumber, const Failure& failure) override { ADD_FAILURE() << failure.message; }
  std::map<JobNumber, std::string> texts;
  std::map<JobNumber, Usage> used;
};

// Which products it was asked for, and which it multiplied.
class Counting final : public CublasLt {
 public:
  using Product = std::tuple<int64_t, int64_t, int64_t>;
  struct Seen {
    std::set<Product> asked, multiplied;
  };
  explicit Counting(Seen& seen) : seen_(seen) {}
  const char* name() const override { return "counting"; }
  bool can(const Matrix& weight, int64_t rows) override {
    seen_.asked.insert({weight.rows, weight.cols, rows});
    return plain_->can(weight, rows);
  }
  Status multiply(CUstream_st* stream, float* out, const void* x, const Matrix& weight,
                  int64_t rows, bool add) override {
    seen_.multiplied.insert({weight.rows, weight.cols, rows});
    return plain_->multiply(stream, out, x, weight, rows, add);
  }

 private:
  Seen& seen_;
  std::unique_ptr<CublasLt> plain_ = emulation::library();
};

TEST_F(CudaRunnerTest, NoStepIsTheFirstToAskTheLibraryForAProduct) {
  Counting::Seen seen;
  auto made =
      CudaRunner::make(*load_model(kGrouped), *use_device(0), std::make_unique<Counting>(seen),
                       {.max_parts = 8, .prefill_tokens = 70, .graphs = false});
  ASSERT_TRUE(made) << made.error().message;
  CudaRunner& runner = **made;
  EXPECT_EQ(runner.slow(), "");
  const Counting::Seen opened = seen;
  EXPECT_FALSE(opened.multiplied.empty());
  for (const size_t tokens : {5, 17, 40, 65, 70}) {
    Sequence(runner, 80).feed(std::vector<int32_t>(tokens, 1));
  }
  EXPECT_EQ(seen.asked, opened.asked);
  EXPECT_EQ(seen.multiplied, opened.multiplied);
}

TEST_F(CudaRunnerTest, ProductsAreOfFewNumbersOfRowsThatHoldNotMuchMore) {
  std::set<int64_t> numbers;
  for (int64_t rows = 1; rows <= 768; ++rows) {
    const int64_t padded = Matmul::padded(rows);
    EXPECT_GE(padded, rows);
    EXPECT_LE(padded, rows <= 64 ? rows + 15 : rows * 3 / 2);
    EXPECT_EQ(Matmul::padded(padded), padded);
    numbers.insert(padded);
  }
  EXPECT_LE(numbers.size(), 14U);
}

TEST_F(CudaRunnerTest, ASlowWayIsToldOf) {
  EXPECT_NE(open(kGrouped, {})->slow().find("cuBLASLt is not used"), std::string::npos);
  EXPECT_EQ(open(kGrouped, {}, true)->slow(), "");
}

TEST_F(CudaRunnerTest, TheCacheIsNoLargerThanItsJobsCanFill) {
  const auto runner = open(kGrouped, {.max_parts = 2});
  EXPECT_EQ(runner->blocks().blocks(), 2 * BlockPool::blocks_for(runner->config().max_positions));
  const int64_t few = 3 * runner->block_bytes() + 1;
  EXPECT_EQ(open(kGrouped, {.memory_bytes = few})->blocks().blocks(), 3);
  const auto none = CudaRunner::make(*load_model(kGrouped), *use_device(0), nullptr,
                                     {.memory_bytes = runner->block_bytes() - 1, .max_parts = 1});
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("memory"), std::string::npos);
}

TEST_F(CudaRunnerTest, HeadsThatNoKernelIsForAreRefusedWithTheWayOut) {
  auto files = *load_model(kGrouped);
  files.config.head_dim = 258;
  const auto refused = CudaRunner::make(files, *use_device(0), nullptr, {.max_parts = 1});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("258"), std::string::npos);
  EXPECT_NE(refused.error().message.find("cpu"), std::string::npos);
}

// The same engine code on both: jobs that join while others run, prompts in pieces, a cache that
// not all fit into at once.
TEST_F(CudaRunnerTest, TheEngineAnswersOnCudaWhatItAnswersOnTheCpu) {
  const std::string folder = kSource + "/tests/fixtures/llama/bf16_sharded";
  const auto answers_of = [&](std::unique_ptr<Runner> runner) {
    NoSink sink;
    auto engine = *llama::open({.model_dir = folder, .model_name = "m"}, std::move(runner), sink);
    for (JobNumber job = 1; job <= 5; ++job) {
      const std::string body = R"({"temperature":0,"ignore_eos":true,"max_tokens":8,"prompt":")" +
                               std::string(job * 4, static_cast<char>('a' + job)) + "\"}";
      auto plan = engine->admit({.method = "POST", .path = "/v1/completions", .body = body});
      engine->start(job, std::get<std::unique_ptr<Plan>>(std::move(plan)));
      engine->step(0);
    }
    for (int steps = 0; engine->step(0) != Engine::kIdle && steps < 200; ++steps) {
    }
    std::map<JobNumber, std::string> texts;
    for (auto& [job, body] : sink.texts) {
      simdjson::dom::parser parser;
      const simdjson::dom::element root = parser.parse(body);
      texts[job] = root["choices"].at(0)["text"].get_string().value();
      EXPECT_EQ(sink.used[job].completion_tokens, 8U);
    }
    return texts;
  };
  const auto expected = answers_of(*open_cpu_runner(folder, cpu_backend(1), 64 << 20, 256));
  EXPECT_EQ(expected.size(), 5U);
  const auto blocks = 4;  // two or three jobs'
  const int64_t block_bytes = open(folder, {.exact = true})->block_bytes();
  EXPECT_EQ(answers_of(open(folder, {.memory_bytes = blocks * block_bytes,
                                     .max_parts = 3,
                                     .prefill_tokens = 3,
                                     .exact = true})),
            expected);
}

// Tokens and their probabilities, of requests that edit logits beside one that does not.
TEST_F(CudaRunnerTest, RequestsThatEditLogitsAreAnsweredOnCudaAsOnTheCpu) {
  const std::string folder = kSource + "/tests/fixtures/llama/bf16_sharded";
  const std::vector<std::string> settings = {
      R"("repetition_penalty":3)", R"("logit_bias":{"5":100,"6":99.5},"presence_penalty":2)",
      R"("seed":1)", R"("min_tokens":8,"frequency_penalty":-2,"ignore_eos":false)",
      R"("stop_token_ids":[1,2,3],"min_tokens":8)"};
  const auto answers_of = [&](std::unique_ptr<Runner> runner) {
    NoSink sink;
    auto engine =
        *llama::open({.model_dir = folder, .model_name = "m", .rules = {.steering = true}},
                     std::move(runner), sink);
    for (size_t job = 0; job < settings.size(); ++job) {
      const std::string body =
          R"({"temperature":0,"ignore_eos":true,"max_tokens":8,"logprobs":0,"prompt":"abcab",)" +
          settings[job] + "}";
      auto plan = engine->admit({.method = "POST", .path = "/v1/completions", .body = body});
      EXPECT_TRUE(std::holds_alternative<std::unique_ptr<Plan>>(plan))
          << std::get<Failure>(plan).message;
      engine->start(job + 1, std::get<std::unique_ptr<Plan>>(std::move(plan)));
    }
    for (int steps = 0; engine->step(0) != Engine::kIdle && steps < 200; ++steps) {
    }
    return sink.texts;
  };
  const auto on_cpu = answers_of(*open_cpu_runner(folder, cpu_backend(1), 64 << 20, 256));
  const auto on_cuda = answers_of(open(folder, {.max_parts = 4, .exact = true}));
  ASSERT_EQ(on_cpu.size(), settings.size());
  std::set<std::string> texts;
  for (const auto& [job, answer] : on_cpu) {
    simdjson::dom::parser parser;
    simdjson::dom::parser other;
    const auto cpu = parser.parse(answer)["choices"].at(0);
    const auto cuda = other.parse(on_cuda.at(job))["choices"].at(0);
    EXPECT_EQ(cpu["text"].get_string().value(), cuda["text"].get_string().value()) << job;
    texts.emplace(cpu["text"].get_string().value());
    const auto logprobs = cpu["logprobs"]["token_logprobs"];
    const auto others = cuda["logprobs"]["token_logprobs"];
    ASSERT_EQ(logprobs.get_array().size(), others.get_array().size());
    EXPECT_GT(logprobs.get_array().size(), 0U);
    for (size_t i = 0; i < logprobs.get_array().size(); ++i) {
      EXPECT_NEAR(logprobs.at(i).get_double().value(), others.at(i).get_double().value(), 1e-3)
          << job;
      EXPECT_LE(logprobs.at(i).get_double().value(), 1e-6);
    }
  }
  EXPECT_GE(texts.size(), 3U) << "or the settings had no effect";
}

TEST_F(CudaRunnerTest, ADeviceWhoseMemoryOthersHaveIsNotAtFaultAndOpensNoModel) {
  emulation::answer(false);
  EXPECT_FALSE(works("0")) << "one that does not answer is";
  emulation::answer(true);
  EXPECT_TRUE(works("0"));
  emulation::fill(true);
  EXPECT_TRUE(works("0"));
  const auto refused = open_runner({.model_dir = kGrouped, .device = "0"});
  emulation::fill(false);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("out of memory"), std::string::npos);
}

TEST(CudaDeviceTest, NumbersThatDoNotAnswerAreRefusedAndSaidWhy) {
  const Status none = answers("0");
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("no NVIDIA driver"), std::string::npos);
  emulation::answer(true);
  EXPECT_TRUE(answers("0"));
  EXPECT_FALSE(answers("1"));
  EXPECT_FALSE(answers("-1"));
  EXPECT_FALSE(answers("GPU0"));
  emulation::answer(false);
}

// In a build with CUDA and in one without.
TEST(DeviceTest, AutoTakesTheCpuWhereNoGpuAnswersAndSaysSoOnceWithTheReason) {
  std::vector<std::string> lines;
  const auto runner =
      llama::open_runner({.model_dir = kGrouped,
                          .device = "auto",
                          .memory_bytes = 1 << 20,
                          .threads = 1,
                          .log = [&](const std::string& line) { lines.push_back(line); }});
  ASSERT_TRUE(runner) << runner.error().message;
  EXPECT_EQ(std::string((*runner)->name()).substr(0, 3), "cpu");
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_NE(lines[0].find("CPU"), std::string::npos) << lines[0];
  EXPECT_TRUE(lines[0].find("driver") != std::string::npos ||
              lines[0].find("without CUDA") != std::string::npos)
      << lines[0];
}

TEST(DeviceTest, ANamedDeviceThatDoesNotAnswerIsRefusedNeverReplaced) {
  const auto refused = llama::open_runner({.model_dir = kGrouped, .device = "0"});
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().message.starts_with("device 0: ")) << refused.error().message;
  EXPECT_NE(refused.error().message.find("auto"), std::string::npos);
}

}  // namespace
}  // namespace penstock::llama::cuda
