#include "worker/engines/http/health.h"

#include <gtest/gtest.h>

namespace penstock::http_engine {
namespace {

using Question = Health::Question;

class HealthTest : public ::testing::Test {
 protected:
  Health health{"/health", "m", true};
  int64_t now_ns = kNsPerSec;

  // The next question is this one, and it is answered so.
  void answer(Question wanted, int status, std::string_view body = "") {
    Question question{};
    ASSERT_TRUE(health.ask(now_ns, question));
    EXPECT_EQ(question, wanted);
    EXPECT_FALSE(health.ask(now_ns, question)) << "one question at a time";
    health.replied(question, {.status = status, .error = "refused", .body = body}, now_ns);
  }
};

TEST_F(HealthTest, IsNotWellBeforeItSaidSo) {
  EXPECT_FALSE(health.well());
  answer(Question::kHealth, 200);
  EXPECT_TRUE(health.well());
}

TEST_F(HealthTest, TellsWhyItIsNot) {
  answer(Question::kHealth, 503);
  EXPECT_EQ(health.why(), "GET /health: 503");
  Question question{};
  EXPECT_FALSE(health.ask(now_ns, question));
  now_ns = health.next_event();
  answer(Question::kHealth, 0);
  EXPECT_EQ(health.why(), "GET /health: refused");
}

TEST_F(HealthTest, AsksForModelsOnceAndForLoadEachRound) {
  answer(Question::kHealth, 200);
  answer(Question::kModels, 200,
         R"({"data":[{"id":"x","max_model_len":1},)"
         R"({"id":"m","max_model_len":8192}]})");
  answer(Question::kMetrics, 200, "vllm:num_requests_waiting{a=\"b c\"} 3.0\n");
  EXPECT_EQ(health.context_tokens(), 8192U);
  EXPECT_EQ(health.load().waiting, 3U);
  now_ns = health.next_event();
  answer(Question::kHealth, 200);
  answer(Question::kMetrics, 404);
  EXPECT_FALSE(health.load().waiting);
}

TEST_F(HealthTest, AServerThatHasOtherModelsIsToldOf) {
  answer(Question::kHealth, 200);
  answer(Question::kModels, 200, R"({"data":[{"id":"x"},{"id":"y\nz"}]})");
  EXPECT_EQ(health.take_others(), "x, y?z");
  EXPECT_EQ(health.take_others(), "");
}

TEST_F(HealthTest, BusySlotsAreAskedForWhenTheyAreWantedAndAnswerAtAll) {
  answer(Question::kHealth, 200);
  answer(Question::kModels, 404);
  answer(Question::kMetrics, 404);
  health.look_at_slots(now_ns, true);
  EXPECT_EQ(health.path(Question::kSlots), "/slots");
  answer(Question::kSlots, 200,
         R"([{"id":0,"is_processing":true},{"id":1,"is_processing":false},)"
         R"({"id":2,"state":1},{"id":3,"state":0},{"id":4}])");
  EXPECT_EQ(health.take_busy(), 3U);
  EXPECT_EQ(health.take_busy(), std::nullopt);
  EXPECT_EQ(health.next_event(), now_ns + Health::kEveryNs);
  health.look_at_slots(now_ns, true);
  answer(Question::kSlots, 501);
  EXPECT_EQ(health.take_busy(), std::nullopt);
  health.look_at_slots(now_ns + kNsPerMs, true);
  now_ns = health.next_event();
  EXPECT_EQ(health.path(Question::kSlots), "/metrics") << "it has none of the other";
  answer(Question::kSlots, 200, "vllm:num_requests_running 2\nvllm:num_requests_waiting 1\n");
  EXPECT_EQ(health.take_busy(), 3U);
}

TEST_F(HealthTest, NothingIsAskedWithoutAPath) {
  Health silent("", "m", true);
  Question question{};
  EXPECT_FALSE(silent.ask(now_ns, question));
  EXPECT_TRUE(silent.well());
  EXPECT_EQ(silent.next_event(), INT64_MAX);
}

TEST(ServerLoadTest, KnowsTheServersNames) {
  const ServerLoad load = read_metrics(
      "# HELP vllm:num_requests_running x\n"
      "vllm:num_requests_running{model_name=\"a b} c\",engine=\"0\"} 4.0\n"
      "vllm:num_requests_running{engine=\"1\"} 2\n"
      "vllm:num_requests_waiting 7 1700000000\n"
      "vllm:kv_cache_usage_perc{x=\"y\"} 0.5\n"
      "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"27465\"} 1.0\n");
  EXPECT_EQ(load.running, 6U);
  EXPECT_EQ(load.waiting, 7U);
  EXPECT_EQ(load.kv_use, 0.5);
  EXPECT_EQ(load.kv_blocks, 27465U);
  EXPECT_EQ(read_metrics("nv_inference_pending_request_count{m=\"1\"} 3\n").waiting, 3U);
}

TEST(ServerLoadTest, NonsenseIsPassedOver) {
  const ServerLoad load = read_metrics(
      "vllm:num_requests_running NaN\nvllm:num_requests_waiting -1\nvllm:kv_cache_usage_perc 9\n"
      "vllm:num_requests_running{\nvllm:num_requests_waiting\n<html>\n\n{} 1");
  EXPECT_FALSE(load.running || load.waiting || load.kv_use);
}

}  // namespace
}  // namespace penstock::http_engine
