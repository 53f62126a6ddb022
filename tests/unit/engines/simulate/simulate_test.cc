#include <gtest/gtest.h>

#include "shared/base/clock.h"
#include "tests/unit/pool/recording_sink.h"
#include "worker/engines/simulate/simulate_engine.h"

namespace penstock::simulate {
namespace {

using test::RecordingSink;

constexpr std::string_view kChat =
    R"({"messages":[{"role":"user","content":"x"}],"stream":true,"max_tokens":8})";

class SimulateTest : public ::testing::Test {
 protected:
  void make(const SimulateOptions& options) { engine_.emplace(options, "sim", sink_); }

  void start(JobNumber job, std::string_view path = "/any", std::string_view body = "\x01\x02") {
    auto verdict = engine_->admit({.method = "POST", .path = path, .body = body});
    ASSERT_TRUE(std::holds_alternative<std::unique_ptr<Plan>>(verdict));
    engine_->start(job, std::get<std::unique_ptr<Plan>>(std::move(verdict)));
  }

  // Steps at each due time until nothing runs; returns when that was.
  int64_t run(int64_t now_ns = 0) {
    for (int64_t due = now_ns; due != Engine::kIdle; due = engine_->step(now_ns)) {
      EXPECT_GE(due, now_ns);
      now_ns = due;
    }
    return now_ns;
  }

  double mean_time_ns(const SimulateOptions& options, int jobs) {
    make(options);
    double sum = 0;
    for (int i = 0; i < jobs; ++i) {
      start(1);
      run();
      sum += static_cast<double>(sink_.usages.back().device_ns);
    }
    return sum / jobs;
  }

  RecordingSink sink_;
  std::optional<SimulateEngine> engine_;
};

TEST_F(SimulateTest, AJobTakesItsServiceTime) {
  make({.service_time_ns = 20 * kNsPerMs});
  start(1);
  EXPECT_EQ(engine_->step(1000), 1000 + 20 * kNsPerMs);
  EXPECT_EQ(engine_->step(999 + 20 * kNsPerMs), 1000 + 20 * kNsPerMs);
  EXPECT_TRUE(sink_.heads.empty());
  EXPECT_EQ(engine_->step(1000 + 20 * kNsPerMs), Engine::kIdle);
  EXPECT_EQ(sink_.body, "{\"ok\":true,\"engine\":\"simulate\"}\n");
  EXPECT_EQ(sink_.heads.at(0).content_length, static_cast<int64_t>(sink_.body.size()));
  EXPECT_EQ(sink_.usages.at(0).device_ns, 20U * kNsPerMs);
}

TEST_F(SimulateTest, NoServiceTimeFinishesWithinTheStep) {
  make({});
  start(1);
  start(2, "/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(engine_->step(5), Engine::kIdle);
  EXPECT_EQ(sink_.usages.size(), 2U);
  EXPECT_EQ(sink_.usages[1].completion_tokens, 16U);
}

TEST_F(SimulateTest, AStreamsTokensArriveOverTheServiceTime) {
  make({.service_time_ns = 80 * kNsPerMs});
  start(1, "/v1/chat/completions", kChat);
  engine_->step(0);
  size_t before = sink_.body.size();
  for (int token = 1; token < 8; ++token) {
    engine_->step(token * 10 * kNsPerMs + 1);
    EXPECT_GT(sink_.body.size(), before) << token;
    before = sink_.body.size();
    engine_->step(token * 10 * kNsPerMs + 5 * kNsPerMs);
    EXPECT_EQ(sink_.body.size(), before) << token;
  }
  EXPECT_TRUE(sink_.usages.empty());
  EXPECT_EQ(engine_->step(80 * kNsPerMs), Engine::kIdle);
  EXPECT_EQ(sink_.usages.at(0).completion_tokens, 8U);
  EXPECT_NE(sink_.body.find("\"finish_reason\":\"length\""), std::string::npos);
}

TEST_F(SimulateTest, ItAsksToBeSteppedForEachTokenAndNoMore) {
  make({.service_time_ns = 80 * kNsPerMs});
  start(1, "/v1/chat/completions", kChat);
  int steps = 0;
  int64_t now = 0;
  for (int64_t due = engine_->step(0); due != Engine::kIdle; due = engine_->step(now)) {
    now = due;
    ++steps;
  }
  EXPECT_EQ(now, 80 * kNsPerMs);
  EXPECT_LE(steps, 9);
}

TEST_F(SimulateTest, TokensPerSecondSetTheServiceTime) {
  make({.service_time_ns = 1, .tokens_per_second = 100});
  start(1, "/v1/completions", R"({"prompt":"x","max_tokens":5})");
  EXPECT_EQ(run(), 50 * kNsPerMs);
  start(2, "/v1/completions", R"({"prompt":"x","max_tokens":200,"ignore_eos":true})");
  EXPECT_EQ(run(), 2 * kNsPerSec);
}

TEST_F(SimulateTest, AStopStringEndsTheAnswer) {
  make({});
  start(1, "/v1/completions", R"({"prompt":"x","stop":" behind"})");
  engine_->step(0);
  EXPECT_NE(sink_.body.find(R"("text":"The water waits","logprobs":null,"finish_reason":"stop")"),
            std::string::npos)
      << sink_.body;
}

TEST_F(SimulateTest, DoneSaysWhatTheAnswerSaysOnEveryPath) {
  const std::string text = R"({"prompt":"twelve bytes","max_tokens":5)";
  const std::string chat =
      R"({"messages":[{"role":"system","content":"six by"},{"role":"user","content":"six by"}],)"
      R"("max_tokens":5)";
  for (const bool streamed : {false, true}) {
    for (const bool is_chat : {false, true}) {
      sink_ = {};
      make({.service_time_ns = 40 * kNsPerMs});
      const std::string more =
          streamed ? R"(,"stream":true,"stream_options":{"include_usage":true}})" : "}";
      start(1, is_chat ? "/v1/chat/completions" : "/v1/completions",
            (is_chat ? chat : text) + more);
      run(7);
      ASSERT_EQ(sink_.usages.size(), 1U);
      EXPECT_EQ(sink_.usages[0].prompt_tokens, 3U) << "four bytes each, of the text alone";
      EXPECT_EQ(sink_.usages[0].completion_tokens, 5U);
      EXPECT_EQ(sink_.usages[0].device_ns, 40U * kNsPerMs);
      EXPECT_NE(
          sink_.body.find(R"("usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8})"),
          std::string::npos)
          << sink_.body;
    }
  }
}

TEST_F(SimulateTest, AStreamThatAStopStringEndsPaysForTheTimeItHadItsSlot) {
  make({.service_time_ns = 160 * kNsPerMs});  // 16 tokens
  start(1, "/v1/completions", R"({"prompt":"x","stop":" behind","stream":true})");
  const int64_t ended_ns = run();
  EXPECT_NEAR(static_cast<double>(ended_ns), 40 * kNsPerMs, 10) << "with the fourth word";
  EXPECT_EQ(sink_.usages.at(0).device_ns, static_cast<uint64_t>(ended_ns));
  EXPECT_EQ(sink_.usages.at(0).completion_tokens, 4U);
  start(2, "/v1/completions", R"({"prompt":"x","stop":" behind"})");
  run();
  EXPECT_EQ(sink_.usages.at(1).device_ns, 160U * kNsPerMs) << "whole, it held it to the end";
}

TEST_F(SimulateTest, ALateStepCostsTheJobNothing) {
  make({.service_time_ns = 20});
  start(1);
  engine_->step(0);
  engine_->step(1000);
  EXPECT_EQ(sink_.usages.at(0).device_ns, 20U);
  EXPECT_EQ(sink_.usages.at(0).prompt_tokens + sink_.usages.at(0).completion_tokens, 0U)
      << "it was not about text";
}

TEST_F(SimulateTest, AnOverrideIsObeyedAndTheAnswerNamesTheModelThatRan) {
  make({});
  auto verdict = engine_->admit({.method = "POST",
                                 .path = "/v1/completions",
                                 .model = "sim",
                                 .body = R"({"model":"large","prompt":"x","max_tokens":9})",
                                 .override = R"({"model":"sim","max_tokens":2})"});
  ASSERT_TRUE(std::holds_alternative<std::unique_ptr<Plan>>(verdict));
  engine_->start(1, std::get<std::unique_ptr<Plan>>(std::move(verdict)));
  run();
  EXPECT_EQ(sink_.usages.at(0).completion_tokens, 2U);
  EXPECT_NE(sink_.body.find(R"("model":"sim")"), std::string::npos) << sink_.body;
}

TEST_F(SimulateTest, ABadCompletionIsRefusedAndOtherBytesAreNot) {
  make({});
  const auto verdict_of = [&](std::string_view path, std::string_view body) {
    return engine_->admit({.method = "POST", .path = path, .body = body}).index();
  };
  EXPECT_EQ(verdict_of("/v1/completions", R"({"prompt":5})"), 1U);
  EXPECT_EQ(verdict_of("/v1/completions", " {"), 1U);
  EXPECT_EQ(verdict_of("/v1/completions", "\x01\x02"), 0U) << "load tests post anything";
  EXPECT_EQ(verdict_of("/render", R"({"prompt":5})"), 0U);
  EXPECT_EQ(verdict_of("/render", ""), 0U);
}

TEST_F(SimulateTest, JobsRunBesideEachOther) {
  make({.service_time_ns = 10});
  for (JobNumber job = 1; job <= 100; ++job) {
    start(job);
  }
  EXPECT_EQ(run(), 10);
  EXPECT_EQ(sink_.usages.size(), 100U);
}

TEST_F(SimulateTest, ACancelledJobSaysNothingMore) {
  make({.service_time_ns = 10});
  start(1);
  start(2);
  engine_->cancel(1);  // not stepped yet
  engine_->step(0);
  start(3);
  engine_->step(5);
  engine_->cancel(2);
  engine_->cancel(77);
  EXPECT_EQ(run(5), 15);
  EXPECT_EQ(sink_.usages.size(), 1U);
  EXPECT_EQ(sink_.heads.at(0).job, 3U);
}

TEST_F(SimulateTest, LongJobsTellTheirProgressAtABoundedRate) {
  make({.service_time_ns = 100 * kNsPerSec});
  start(1);
  run();
  ASSERT_EQ(sink_.fractions.size(), 19U);
  EXPECT_NEAR(sink_.fractions[0], 0.05, 1e-6);
  EXPECT_NEAR(sink_.fractions[18], 0.95, 1e-6);
  sink_.fractions.clear();
  make({.service_time_ns = kNsPerSec});
  start(2);
  run();
  EXPECT_EQ(sink_.fractions.size(), 3U);
}

TEST_F(SimulateTest, TheMeanOfEachDistributionIsTheServiceTime) {
  constexpr int kJobs = 40'000;
  SimulateOptions options{.service_time_ns = kNsPerMs};
  EXPECT_EQ(mean_time_ns(options, 10), kNsPerMs);
  options.distribution =
      Distribution::kExponential;  // deviation of the mean: 1 / sqrt(jobs) = 0.5 %
  EXPECT_NEAR(mean_time_ns(options, kJobs), kNsPerMs, 0.02 * kNsPerMs);
  options.distribution = Distribution::kLognormal;
  options.sigma = 1;  // sqrt(e - 1) / sqrt(jobs) = 0.66 %
  EXPECT_NEAR(mean_time_ns(options, kJobs), kNsPerMs, 0.03 * kNsPerMs);
}

TEST_F(SimulateTest, TheSameSeedGivesTheSameTimes) {
  const auto times = [&](uint64_t seed) {
    sink_.usages.clear();
    make({.service_time_ns = kNsPerMs, .distribution = Distribution::kExponential, .seed = seed});
    std::vector<uint64_t> all;
    for (int i = 0; i < 10; ++i) {
      start(1);
      run();
      all.push_back(sink_.usages.back().device_ns);
    }
    return all;
  };
  EXPECT_EQ(times(3), times(3));
  EXPECT_NE(times(3), times(4));
}

TEST_F(SimulateTest, TheFailureRateIsKeptAndFailuresMayBeTriedAgain) {
  make({.failure_rate = 0.25});
  for (int i = 0; i < 4000; ++i) {
    start(1, "/v1/chat/completions", kChat);
    run();
  }
  EXPECT_NEAR(static_cast<double>(sink_.failures.size()), 1000, 100);
  EXPECT_EQ(sink_.failures.size() + sink_.usages.size(), 4000U);
  EXPECT_EQ(sink_.heads.size(), sink_.usages.size()) << "it fails before it answers";
  EXPECT_EQ(sink_.failures[0].status, 502);
  EXPECT_EQ(sink_.failures[0].code, "engine_failed");
  EXPECT_TRUE(sink_.failures[0].retryable);
}

TEST(SimulateOptionsTest, ReadsEveryKey) {
  const auto options = parse_options({{"service_time", "20ms"},
                                      {"distribution", "lognormal"},
                                      {"sigma", "0.7"},
                                      {"tokens_per_second", "50"},
                                      {"output_tokens", "9"},
                                      {"failure_rate", "0.1"},
                                      {"job_memory", "1MiB"},
                                      {"seed", "5"}});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->service_time_ns, 20 * kNsPerMs);
  EXPECT_EQ(options->distribution, Distribution::kLognormal);
  EXPECT_EQ(options->output_tokens, 9U);
  EXPECT_EQ(options->job_memory_bytes, 1 << 20);
  EXPECT_EQ(parse_options({{"service_time_ns", "17"}})->service_time_ns, 17);
}

TEST(SimulateOptionsTest, AWrongValueIsNamedWithWhatWouldBeRight) {
  for (const auto& [key, value] : {std::pair{"service_time", "20"},
                                   {"service_time", "-1s"},
                                   {"service_time_ns", "1e6"},
                                   {"distribution", "normal"},
                                   {"sigma", "nan"},
                                   {"output_tokens", "0"},
                                   {"failure_rate", "1.5"},
                                   {"seed", ""},
                                   {"job_memory", "many"},
                                   {"speed", "5"}}) {
    const auto options = parse_options({{key, value}});
    ASSERT_FALSE(options) << key << "=" << value;
    EXPECT_NE(options.error().message.find(std::string(key) + "=" + value), std::string::npos);
  }
  EXPECT_EQ(parse_options({{"sigma", "9"}}).error().message,
            "option sigma=9 of the simulate engine must be a number from 0 to 5");
}

}  // namespace
}  // namespace penstock::simulate
