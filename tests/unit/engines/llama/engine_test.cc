// The engine as the pool drives it, on the small random models of the fixtures.
#include "worker/engines/llama/engine.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "shared/base/clock.h"
#include "tests/unit/engines/llama/fixtures.h"
#include "worker/engines/llama/cpu_runner.h"
#include "worker/engines/llama/kv_cache.h"
#include "worker/engines/llama/tokenizer.h"

namespace penstock::llama {
namespace {

const std::string kModel = kSource + "/tests/fixtures/llama/bf16_sharded";  // 128 positions, eos 0
const std::string kLlama3 = kSource + "/tests/fixtures/llama/bf16_llama3_rope";
constexpr int64_t kBlockBytes = 2 * 2 * 1 * 8 * 16 * 4;  // of kModel: layers, kv heads, head_dim

struct Record {
  int status = 0;
  std::string body;
  int chunks = 0;
  bool done = false;
  Usage usage;
  std::optional<Failure> failure;
  bool ended() const { return done || failure.has_value(); }
};

class RecordingSink final : public Sink {
 public:
  void head(JobNumber job, int status, std::string_view, int64_t, std::string_view) override {
    EXPECT_EQ(jobs[job].status, 0) << "two heads";
    jobs[job].status = status;
  }
  void chunk(JobNumber job, std::string_view bytes) override {
    EXPECT_FALSE(jobs[job].ended());
    jobs[job].body += bytes;
    ++jobs[job].chunks;
  }
  void progress(JobNumber, double, uint32_t, uint32_t) override {}
  void done(JobNumber job, const Usage& usage) override {
    EXPECT_FALSE(jobs[job].ended());
    jobs[job].done = true;
    jobs[job].usage = usage;
  }
  void failed(JobNumber job, const Failure& failure) override {
    EXPECT_FALSE(jobs[job].ended());
    jobs[job].failure = failure;
  }
  std::map<JobNumber, Record> jobs;
};

class EngineTest : public testing::Test {
 protected:
  void open_model(const std::string& folder, int64_t memory = 64 << 20, int64_t prefill = 256,
                  int threads = 1) {
    auto opened = open({folder, "the-model", memory, threads, prefill}, sink_);
    ASSERT_TRUE(opened) << opened.error().message;
    engine_ = std::move(*opened);
  }

  std::variant<std::unique_ptr<Plan>, Failure> admit(const std::string& body, bool chat = false) {
    return engine_->admit({.method = "POST",
                           .path = chat ? "/v1/chat/completions" : "/v1/completions",
                           .content_type = "application/json",
                           .body = body});
  }

  std::unique_ptr<Plan> plan(const std::string& body, bool chat = false) {
    auto admitted = admit(body, chat);
    if (const auto* failure = std::get_if<Failure>(&admitted)) {
      ADD_FAILURE() << failure->message << " for " << body;
      return nullptr;
    }
    return std::move(std::get<std::unique_ptr<Plan>>(admitted));
  }

  Failure refusal(const std::string& body, bool chat = false) {
    auto admitted = admit(body, chat);
    EXPECT_TRUE(std::holds_alternative<Failure>(admitted)) << body;
    return std::holds_alternative<Failure>(admitted) ? std::get<Failure>(admitted) : Failure{};
  }

  void start(JobNumber job, const std::string& body, bool chat = false) {
    engine_->start(job, plan(body, chat));
  }

  void step_until_idle() {
    for (int steps = 0; engine_->step(17) != Engine::kIdle; ++steps) {
      ASSERT_LT(steps, 10'000);
    }
  }

  // The whole JSON answer of one request served alone, its text only.
  std::string text_of(const Record& record) {
    simdjson::dom::parser parser;
    const simdjson::dom::element root = parser.parse(record.body);
    std::string_view text;
    if (root["choices"].at(0)["text"].get(text) != simdjson::SUCCESS) {
      text = root["choices"].at(0)["message"]["content"].get_string().value();
    }
    return std::string(text);
  }

  std::string serve(const std::string& body, bool chat = false) {
    start(++last_job_, body, chat);
    step_until_idle();
    EXPECT_TRUE(sink_.jobs[last_job_].done) << sink_.jobs[last_job_].body;
    return text_of(sink_.jobs[last_job_]);
  }
  const Record& last() { return sink_.jobs[last_job_]; }

  RecordingSink sink_;
  std::unique_ptr<Engine> engine_;
  JobNumber last_job_ = 1000;
};

TEST_F(EngineTest, ServesACompletionAndAccountsForIt) {
  open_model(kModel);
  EXPECT_EQ(engine_->step(5), Engine::kIdle);
  const std::string text = serve(
      R"({"model":"m","prompt":"the quick","max_tokens":12,"temperature":0,"ignore_eos":true})");
  EXPECT_FALSE(text.empty());
  const auto tokenizer = *Tokenizer::open(kModel + "/tokenizer.json");
  EXPECT_EQ(last().status, 200);
  EXPECT_EQ(last().usage.prompt_tokens, tokenizer.encode("the quick").size());
  EXPECT_EQ(last().usage.completion_tokens, 12U);
  EXPECT_GT(last().usage.device_ns, 0U);
  EXPECT_NE(last().body.find("\"length\""), std::string::npos);
  EXPECT_NE(last().body.find("\"the-model\""), std::string::npos);
}

TEST_F(EngineTest, GreedyTextOfTheDemoModelIsWhatPyTorchSays) {
  open_model(kDemo);
  simdjson::dom::parser parser;
  const auto tokenizer = *Tokenizer::open(kDemo + "/tokenizer.json");
  for (const auto c :
       parser.load(kSource + "/tests/fixtures/llama/demo_expected.json")["cases"].get_array()) {
    const auto greedy = numbers<int32_t>(c["greedy"].value());
    const auto until = std::find(greedy.begin(), greedy.end(), 0);  // the end of text
    const std::string expected = tokenizer.decode({greedy.begin(), until});
    const std::string body =
        "{\"model\":\"m\",\"temperature\":0,\"max_tokens\":" + std::to_string(greedy.size()) +
        ",\"prompt\":" + simdjson::minify(c["text"].value()) + "}";
    const std::string got = serve(body);
    // The last tokens may end within a character, which is then written as U+FFFD.
    const size_t sure = expected.size() > 4 ? expected.size() - 4 : 0;
    EXPECT_EQ(got.substr(0, sure), expected.substr(0, sure));
  }
}

TEST_F(EngineTest, StreamsTheSameTextItWouldSendWhole) {
  open_model(kModel);
  const std::string whole =
      serve(R"({"model":"m","prompt":"a","max_tokens":20,"seed":5,"ignore_eos":true})");
  start(++last_job_,
        R"({"model":"m","prompt":"a","max_tokens":20,"seed":5,"ignore_eos":true,"stream":true})");
  step_until_idle();
  std::string streamed;
  simdjson::dom::parser parser;
  std::istringstream lines(last().body);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("data: {")) {
      const simdjson::dom::element event = parser.parse(line.substr(6));
      streamed += event["choices"].at(0)["text"].get_string().value();
    }
  }
  EXPECT_EQ(streamed, whole);
  EXPECT_TRUE(last().body.ends_with("data: [DONE]\n\n"));
}

TEST_F(EngineTest, AJobsTextIsTheSameAloneAndInAnyCompany) {
  std::vector<std::string> bodies;
  for (int i = 0; i < 12; ++i) {
    const std::string prompt =
        std::string("the queue is ").substr(0, 1 + i) + std::string(i * 3, 'x');
    bodies.push_back("{\"model\":\"m\",\"prompt\":\"" + prompt + "\",\"max_tokens\":" +
                     std::to_string(10 + i * 3) + ",\"seed\":" + std::to_string(i) +
                     ",\"temperature\":" + (i % 3 == 0 ? "0" : "1.3") +
                     ",\"top_p\":" + (i % 2 == 0 ? "1" : "0.8") + "}");
  }
  std::vector<std::string> alone;
  alone.reserve(bodies.size());
  open_model(kModel);
  for (const std::string& body : bodies) {
    alone.push_back(serve(body));
  }
  for (const int64_t prefill : {1, 7, 256}) {
    for (const int threads : {1, 2}) {
      open_model(kModel, 64 << 20, prefill, threads);
      sink_.jobs.clear();
      // They join two at a time, and one that is of no interest comes and goes in between.
      for (size_t i = 0; i < bodies.size(); ++i) {
        start(i + 1, bodies[i]);
        if (i % 2 == 1) {
          engine_->step(0);
          start(500 + i, R"({"model":"m","prompt":"gone soon","max_tokens":50})");
          engine_->step(0);
          engine_->cancel(500 + i);
        }
      }
      step_until_idle();
      for (size_t i = 0; i < bodies.size(); ++i) {
        ASSERT_TRUE(sink_.jobs[i + 1].done);
        EXPECT_EQ(text_of(sink_.jobs[i + 1]), alone[i]) << bodies[i] << ", prefill " << prefill;
      }
    }
  }
}

TEST_F(EngineTest, SeedsDecideAndNoSeedVaries) {
  open_model(kModel);
  const std::string head = R"({"model":"m","prompt":"x","max_tokens":24,"ignore_eos":true)";
  EXPECT_EQ(serve(head + ",\"seed\":1}"), serve(head + ",\"seed\":1}"));
  EXPECT_NE(serve(head + ",\"seed\":1}"), serve(head + ",\"seed\":2}"));
  EXPECT_NE(serve(head + "}"), serve(head + "}"));
}

TEST_F(EngineTest, PlansSayExactlyTheBlocksTheyTakeAndCancelFreesThem) {
  open_model(kModel, 4 * kBlockBytes);
  const std::string body = R"({"model":"m","prompt":"aaaa","max_tokens":60,"ignore_eos":true})";
  const int64_t tokens =
      60 + static_cast<int64_t>(Tokenizer::open(kModel + "/tokenizer.json")->encode("aaaa").size());
  EXPECT_EQ(plan(body)->memory_bytes, KvCache::blocks_for(tokens) * kBlockBytes);
  EXPECT_EQ(plan(body)->memory_bytes, 4 * kBlockBytes) << "the whole cache";
  for (JobNumber job = 1; job < 20; ++job) {
    start(job, body);
    engine_->step(0);
    engine_->step(0);
    engine_->cancel(job);
    engine_->cancel(job);
    EXPECT_EQ(engine_->step(0), Engine::kIdle);
    EXPECT_FALSE(sink_.jobs[job].ended()) << "nothing more is said of a cancelled job";
  }
  serve(body);
}

TEST_F(EngineTest, JobsBeyondTheCacheWaitTheirTurnAndAllEnd) {
  open_model(kModel, 4 * kBlockBytes);
  for (JobNumber job = 1; job <= 6; ++job) {
    start(job, R"({"model":"m","prompt":"aaaa","max_tokens":40,"ignore_eos":true,"seed":1})");
  }
  step_until_idle();
  for (JobNumber job = 1; job <= 6; ++job) {
    EXPECT_TRUE(sink_.jobs[job].done);
    EXPECT_EQ(text_of(sink_.jobs[job]), text_of(sink_.jobs[1]));
  }
}

TEST_F(EngineTest, RequestsThatCannotFitAreRefusedWithTheNumbers) {
  open_model(kModel, 4 * kBlockBytes);
  const Failure cache = refusal(R"({"model":"m","prompt":"a","max_tokens":64})");
  EXPECT_EQ(cache.status, 400);
  EXPECT_EQ(cache.code, "context_length_exceeded");
  EXPECT_EQ(cache.param, "max_tokens");
  EXPECT_NE(cache.message.find("64 tokens"), std::string::npos) << cache.message;
  open_model(kModel);
  EXPECT_NE(refusal(R"({"model":"m","prompt":"a","max_tokens":128})").message.find("128 tokens"),
            std::string::npos);
  plan(R"({"model":"m","prompt":"a","max_tokens":127})");
  const std::string huge(1 << 20, 'z');
  EXPECT_EQ(refusal("{\"model\":\"m\",\"prompt\":\"" + huge + "\"}").code,
            "context_length_exceeded");
  const Failure chat =
      refusal(R"({"model":"m","messages":[{"role":"user","content":")" + huge + "\"}]}", true);
  EXPECT_EQ(chat.param, "messages");
  EXPECT_NE(chat.message.find("(at least "), std::string::npos) << chat.message;
  const Failure asked = refusal(
      R"({"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":100000})", true);
  EXPECT_EQ(asked.param, "max_tokens") << asked.message;
  EXPECT_EQ(asked.message.find("has 0,"), std::string::npos) << "the prompt was counted";
}

TEST_F(EngineTest, DoneSaysWhatTheAnswerSaysOnEveryPath) {
  open_model(kModel);
  const auto tokenizer = *Tokenizer::open(kModel + "/tokenizer.json");
  const uint64_t prompt_tokens = tokenizer.encode("the queue").size() + (tokenizer.first() ? 1 : 0);
  for (const bool chat : {false, true}) {
    for (const bool streamed : {false, true}) {
      const char* const what = chat ? R"({"messages":[{"role":"user","content":"the queue"}])"
                                    : R"({"prompt":"the queue")";
      const char* const how =
          streamed ? R"(,"stream":true,"stream_options":{"include_usage":true}})" : "}";
      start(++last_job_, std::string(what) + R"(,"max_tokens":6,"ignore_eos":true)" + how, chat);
      step_until_idle();
      const Usage& usage = last().usage;
      EXPECT_EQ(usage.completion_tokens, 6U);
      EXPECT_GT(usage.device_ns, 0U);
      if (chat) {
        EXPECT_GT(usage.prompt_tokens, prompt_tokens) << "the template's tokens are read, too";
      } else {
        EXPECT_EQ(usage.prompt_tokens, prompt_tokens);
      }
      const std::string said =
          "\"usage\":{\"prompt_tokens\":" + std::to_string(usage.prompt_tokens) +
          ",\"completion_tokens\":6,\"total_tokens\":" + std::to_string(usage.prompt_tokens + 6);
      EXPECT_NE(last().body.find(said), std::string::npos) << last().body;
    }
  }
}

TEST_F(EngineTest, JobsInABatchShareItsTimeByTheirTokens) {
  open_model(kModel);
  constexpr JobNumber kJobs = 16;
  const std::string tail = R"("temperature":0,"ignore_eos":true,"max_tokens":)";
  const int64_t begun = monotonic_ns();
  for (JobNumber job = 1; job <= kJobs; ++job) {
    start(job, R"({"prompt":"aaaa",)" + tail + (job == 1 ? "60}" : "30}"));
  }
  step_until_idle();
  const auto passed = static_cast<uint64_t>(monotonic_ns() - begun);
  uint64_t sum = 0;
  for (JobNumber job = 1; job <= kJobs; ++job) {
    const uint64_t device_ns = sink_.jobs[job].usage.device_ns;
    sum += device_ns;
    EXPECT_GT(device_ns, 0U);
    EXPECT_EQ(device_ns == sink_.jobs[2].usage.device_ns, job != 1) << "the same in the same steps";
  }
  EXPECT_LE(sum, passed);
  EXPECT_GT(sum, passed / 20) << "not next to nothing either";
}

TEST_F(EngineTest, FiguresCountEveryTokenStepAndBlock) {
  open_model(kModel, 64 << 20, 4);
  EXPECT_EQ(engine_->figures().steps, 0U);
  EXPECT_EQ(engine_->figures().kv_blocks, static_cast<uint64_t>((64 << 20) / kBlockBytes));
  const std::string body = R"({"prompt":"abcdefgh","max_tokens":5,"ignore_eos":true})";
  start(1, body);
  start(2, body);
  engine_->step(17);
  EXPECT_EQ(engine_->figures().kv_blocks_used, 2U);
  step_until_idle();
  const Figures figures = engine_->figures();
  const uint64_t prompt = sink_.jobs[1].usage.prompt_tokens;
  EXPECT_EQ(figures.prompt_tokens, 2 * prompt);
  EXPECT_EQ(figures.generation_tokens, 10U);
  EXPECT_EQ(figures.kv_blocks_used, 0U);
  // Four tokens of prompts a step; with the last of its prompt a job draws its first token.
  const uint64_t each = (prompt + 3) / 4 + 4;
  EXPECT_EQ(figures.step_jobs, 2 * each);
  EXPECT_GT(figures.steps, each) << "the second began later";
  EXPECT_LT(figures.steps, 2 * each) << "they were together in some";
}

TEST_F(EngineTest, WhoWaitsForTheCachePaysNothingForIt) {
  open_model(kModel, 4 * kBlockBytes);  // one job's
  const std::string body = R"({"prompt":"aaaa","max_tokens":40,"ignore_eos":true,"temperature":0})";
  const int64_t begun = monotonic_ns();
  for (JobNumber job = 1; job <= 6; ++job) {
    start(job, body);
  }
  step_until_idle();
  const auto passed = static_cast<uint64_t>(monotonic_ns() - begun);
  uint64_t sum = 0;
  for (JobNumber job = 1; job <= 6; ++job) {
    sum += sink_.jobs[job].usage.device_ns;
  }
  EXPECT_LE(sum, passed);
}

TEST_F(EngineTest, TheModelOfTheJobAndTheOperatorsOverrideCountNotTheBodys) {
  open_model(kModel);
  auto admitted = engine_->admit({.method = "POST",
                                  .path = "/v1/completions",
                                  .model = "small",
                                  .body = R"({"model":"large","prompt":"a","max_tokens":100})",
                                  .override = R"({"max_tokens":3,"ignore_eos":true})"});
  ASSERT_TRUE(std::holds_alternative<std::unique_ptr<Plan>>(admitted));
  auto plan = std::get<std::unique_ptr<Plan>>(std::move(admitted));
  EXPECT_EQ(plan->memory_bytes, kBlockBytes) << "what is held is what will be used";
  engine_->start(++last_job_, std::move(plan));
  step_until_idle();
  EXPECT_EQ(last().usage.completion_tokens, 3U);
  EXPECT_NE(last().body.find(R"("model":"small")"), std::string::npos) << last().body;
}

TEST_F(EngineTest, WrongRequestsAreRefusedByTheField) {
  open_model(kModel);
  EXPECT_EQ(refusal(R"({"model":"m","prompt":"a","temperature":9})").param, "temperature");
  EXPECT_EQ(refusal("{").status, 400);
}

TEST_F(EngineTest, AnEmptyPromptBeginsAsATextDoes) {
  open_model(kModel);
  serve(R"({"model":"m","prompt":"","max_tokens":3,"ignore_eos":true})");
  EXPECT_EQ(last().usage.prompt_tokens, 1U);
}

TEST_F(EngineTest, TheEndOfTextTokenEndsTheJobUnlessIgnored) {
  open_model(kModel);
  // At this temperature tokens are nearly uniform over 293, so some seed draws the end early.
  int stopped = 0;
  for (int seed = 0; seed < 40; ++seed) {
    const std::string head =
        R"({"model":"m","prompt":"a","max_tokens":100,"temperature":2,"seed":)" +
        std::to_string(seed);
    serve(head + "}");
    if (last().body.find("\"stop\"") != std::string::npos) {
      ++stopped;
      EXPECT_LE(last().usage.completion_tokens, 100U);
      serve(head + ",\"ignore_eos\":true}");
      EXPECT_EQ(last().usage.completion_tokens, 100U);
    }
  }
  EXPECT_GT(stopped, 0);
}

// The model's folder with this generation_config.json.
class Generating {
 public:
  explicit Generating(const std::string& config) : folder_(kModel) {
    spill(folder_ / "generation_config.json", config);
  }
  const std::string& path() const { return folder_.path(); }

 private:
  TempFolder folder_;
};

TEST_F(EngineTest, EveryEndThatGenerationConfigNamesEndsTheAnswer) {
  open_model(kModel);
  const std::string body = R"({"prompt":"a","max_tokens":9,"temperature":0,"ignore_eos":true})";
  serve(body);
  const auto tokenizer = *Tokenizer::open(kModel + "/tokenizer.json");
  const auto said = tokenizer.encode(serve(body));
  for (const std::string& ends : {std::to_string(said[0]), "[" + std::to_string(said[0]) + ",1]"}) {
    const Generating model("{\"eos_token_id\":" + ends + "}");
    open_model(model.path());
    EXPECT_EQ(serve(R"({"prompt":"a","max_tokens":9,"temperature":0})"), "");
    EXPECT_EQ(last().usage.completion_tokens, 1U);
    EXPECT_NE(last().body.find("\"stop\""), std::string::npos);
    serve(body);
    EXPECT_EQ(last().usage.completion_tokens, 9U) << "ignore_eos ignores them all";
  }
}

TEST_F(EngineTest, SamplingIsTheModelsWhereTheRequestDoesNotSay) {
  const std::string head = R"({"prompt":"a","max_tokens":24,"ignore_eos":true,"seed":3)";
  open_model(kModel);
  const std::string greedy = serve(head + R"(,"temperature":0})");
  const std::string wild = serve(head + "}");
  ASSERT_NE(greedy, wild);
  const std::string half = serve(head + R"(,"temperature":0.5,"top_p":0.5})");
  for (const char* config : {R"({"do_sample":false,"temperature":0.6})", R"({"temperature":0})",
                             R"({"top_k":1})", R"({"top_p":0.0})"}) {
    const Generating model(config);
    open_model(model.path());
    EXPECT_EQ(serve(head + "}"), greedy) << config;
  }
  const Generating model(R"({"temperature":0.5,"top_p":0.5})");
  open_model(model.path());
  EXPECT_EQ(serve(head + "}"), half);
  EXPECT_EQ(serve(head + R"(,"temperature":0})"), greedy);
  EXPECT_EQ(serve(head + R"(,"temperature":1,"top_p":1})"), wild) << "who names them has them";
}

TEST_F(EngineTest, WhatGenerationConfigCannotMeanIsRefusedOrNamed) {
  for (const char* config : {"[]", "{", R"({"eos_token_id":293})", R"({"eos_token_id":[1,"x"]})",
                             R"({"temperature":"warm"})", R"({"top_p":2})", R"({"top_k":0.5})"}) {
    const Generating model(config);
    const auto opened = open({model.path(), "m", 0, 1}, sink_);
    ASSERT_FALSE(opened) << config;
    EXPECT_NE(opened.error().message.find("generation_config.json: "), std::string::npos);
  }
  const Generating model(R"({"num_beams":4,"typical_p":1.0,"top_k":7,"temperature":0.25})");
  std::string log;
  const auto opened = open({.model_dir = model.path(),
                            .threads = 1,
                            .log = [&](const std::string& line) { log += line + "\n"; }},
                           sink_);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_NE(log.find("does: temperature 0.25, top_k 7\n"), std::string::npos) << log;
  EXPECT_NE(log.find("num_beams is not implemented and has no effect"), std::string::npos) << log;
  EXPECT_EQ(log.find("typical_p"), std::string::npos) << log;
}

TEST_F(EngineTest, AChatTemplateThatCannotBeUsedIsSaidAndLeavesCompletions) {
  const std::string messages = R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":2})";
  for (const auto& [source, said] :
       {std::pair{"{{ messages[0].content }}", "chat is asked in the model's own template, of "},
        std::pair{"{% include 'x' %}", "chat is refused: the model's own template, of "}}) {
    TempFolder folder(kModel);
    spill(folder / "chat_template.jinja", source);
    std::string log;
    auto opened = open({.model_dir = folder.path(),
                        .threads = 1,
                        .log = [&](const std::string& line) { log += line + "\n"; }},
                       sink_);
    ASSERT_TRUE(opened) << opened.error().message;
    engine_ = std::move(*opened);
    EXPECT_NE(log.find(said + folder.path()), std::string::npos) << log;
    EXPECT_NE(log.find(engine_->chat() + "\n"), std::string::npos) << engine_->chat();
    serve(R"({"prompt":"hi","max_tokens":2})");
    if (log.find("refused") != log.npos) {
      EXPECT_NE(refusal(messages, true).message.find("\"include\" is not implemented"),
                std::string::npos);
    } else {
      serve(messages, true);
      EXPECT_EQ(last().usage.prompt_tokens,
                Tokenizer::open(kModel + "/tokenizer.json")->encode("hi").size());
    }
  }
}

TEST_F(EngineTest, SettingsThatLeaveOneTokenAreGreedy) {
  open_model(kModel);
  const std::string head = R"({"prompt":"a","max_tokens":24,"ignore_eos":true,"seed":3)";
  const std::string greedy = serve(head + R"(,"temperature":0})");
  ASSERT_NE(serve(head + R"(,"temperature":1.5})"), greedy);
  EXPECT_EQ(serve(head + R"(,"temperature":1.5,"top_k":1})"), greedy);
  EXPECT_EQ(serve(head + R"(,"temperature":1.5,"min_p":1})"), greedy);
}

TEST_F(EngineTest, ARepetitionPenaltyMakesWordsComeLessOften) {
  open_model(kModel);
  const auto tokenizer = *Tokenizer::open(kModel + "/tokenizer.json");
  const auto kinds = [&](const std::string& more) {
    const auto tokens = tokenizer.encode(
        serve(R"({"prompt":"a","max_tokens":60,"temperature":0,"ignore_eos":true)" + more + "}"));
    return std::set<int32_t>(tokens.begin(), tokens.end()).size();
  };
  EXPECT_GT(kinds(R"(,"repetition_penalty":5)"), kinds(""));
  EXPECT_EQ(kinds(R"(,"repetition_penalty":1)"), kinds(""));
}

TEST_F(EngineTest, AStopTokenEndsTheAnswerAndIsNoPartOfIt) {
  open_model(kModel);
  const auto tokenizer = *Tokenizer::open(kModel + "/tokenizer.json");
  const std::string head = R"({"prompt":"a","max_tokens":30,"temperature":0,"ignore_eos":true)";
  const std::string whole = serve(head + "}");
  const auto tokens = tokenizer.encode(whole);
  size_t at = 1;  // one that has not come before
  while (std::find(tokens.begin(), tokens.begin() + at, tokens[at]) != tokens.begin() + at) {
    ++at;
  }
  const std::string stop = R"(,"stop_token_ids":[)" + std::to_string(tokens[at]) + "]";
  const std::string stopped = serve(head + stop + "}");
  EXPECT_EQ(whole.substr(0, stopped.size()), stopped);
  EXPECT_EQ(last().usage.completion_tokens, at + 1);
  EXPECT_NE(last().body.find("\"stop\""), std::string::npos);
  serve(head + stop + R"(,"min_tokens":20})");
  EXPECT_GE(last().usage.completion_tokens, 20U) << "it cannot come before";
}

TEST_F(EngineTest, BiasesForceAndForbidTokensWhereTheOperatorAllowsThem) {
  open_model(kModel);
  const std::string head = R"({"prompt":"a","max_tokens":3,"temperature":0,"ignore_eos":true)";
  EXPECT_EQ(refusal(head + R"(,"logit_bias":{"5":1}})").param, "logit_bias");
  const std::string plain = serve(head + "}");
  engine_ = *open({.model_dir = kModel, .model_name = "m", .rules = {.steering = true}}, sink_);
  const auto tokenizer = *Tokenizer::open(kModel + "/tokenizer.json");
  const std::string five(tokenizer.bytes(5));
  EXPECT_EQ(serve(head + R"(,"logit_bias":{"5":100}})"), five + five + five);
  const std::string first = std::to_string(tokenizer.encode(plain)[0]);
  EXPECT_NE(serve(head + R"(,"logit_bias":{")" + first + R"(":-100}})")[0], plain[0]);
  EXPECT_EQ(serve(head + R"(,"logit_bias":{"5":100,"5":0}})"), plain) << "the last one counts";
}

TEST_F(EngineTest, TokensThatAModelDoesNotHaveAreRefused) {
  engine_ = *open({.model_dir = kModel, .model_name = "m", .rules = {.steering = true}}, sink_);
  const Failure stop = refusal(R"({"prompt":"a","stop_token_ids":[1,99999]})");
  EXPECT_EQ(stop.status, 400);
  EXPECT_EQ(stop.param, "stop_token_ids");
  EXPECT_NE(stop.message.find("99999"), std::string::npos);
  EXPECT_EQ(refusal(R"({"prompt":"a","logit_bias":{"99999":1}})").param, "logit_bias");
}

TEST_F(EngineTest, LogprobsAreOfTheTokensOfTheAnswer) {
  open_model(kModel);
  const auto tokenizer = *Tokenizer::open(kModel + "/tokenizer.json");
  const std::string head = R"({"prompt":"a","max_tokens":12,"ignore_eos":true,"temperature":0)";
  const std::string plain = serve(head + "}");
  EXPECT_NE(last().body.find("\"logprobs\":null"), std::string::npos);
  EXPECT_EQ(serve(head + R"(,"logprobs":0})"), plain);
  simdjson::dom::parser parser;
  const auto logprobs = parser.parse(last().body)["choices"].at(0)["logprobs"];
  EXPECT_EQ(logprobs["tokens"].get_array().size(), 12U);
  EXPECT_EQ(logprobs["token_logprobs"].get_array().size(), 12U);
  for (const auto logprob : logprobs["token_logprobs"].get_array()) {
    EXPECT_LT(logprob.get_double().value(), 0);
    EXPECT_GT(logprob.get_double().value(), -20);
  }
}

TEST_F(EngineTest, AStopStringEndsTheJobBeforeIt) {
  open_model(kModel);
  const std::string head =
      R"({"model":"m","prompt":"a","max_tokens":40,"temperature":0,"ignore_eos":true)";
  const std::string whole = serve(head + "}");
  size_t at = 5;
  while (at + 2 < whole.size() && !(std::isalnum(whole[at]) && std::isalnum(whole[at + 1]))) {
    ++at;
  }
  ASSERT_LT(at + 2, whole.size()) << whole;
  const std::string stop = whole.substr(at, 2);
  EXPECT_EQ(serve(head + ",\"stop\":\"" + stop + "\"}"), whole.substr(0, whole.find(stop)));
  EXPECT_LT(last().usage.completion_tokens, 40U);
}

TEST_F(EngineTest, ChatTakesWhatTheContextHasLeft) {
  open_model(kModel);
  serve(
      R"({"model":"m","messages":[{"role":"user","content":"hi"}],"ignore_eos":true,"temperature":0})",
      true);
  EXPECT_EQ(last().usage.prompt_tokens + last().usage.completion_tokens, 128U);
  open_model(kLlama3);
  serve(R"({"model":"m","messages":[{"role":"user","content":"<|eot_id|>"}],"max_tokens":5})",
        true);
}

TEST_F(EngineTest, ALongPromptHoldsNobodyUpForLongerThanAStep) {
  open_model(kModel, 64 << 20, 8);
  start(
      1,
      R"({"model":"m","prompt":"a","max_tokens":30,"ignore_eos":true,"stream":true,"temperature":0})");
  engine_->step(0);
  const std::string prompt(60, '#');
  start(2, "{\"model\":\"m\",\"max_tokens\":4,\"ignore_eos\":true,\"prompt\":\"" + prompt + "\"}");
  for (int i = 0; i < 5; ++i) {
    engine_->step(0);
  }
  EXPECT_GE(sink_.jobs[1].chunks, 4) << "answers go on while the prompt is read";
  step_until_idle();
  EXPECT_TRUE(sink_.jobs[2].done);
  EXPECT_GT(sink_.jobs[2].usage.device_ns, 0U);
}

TEST_F(EngineTest, AModelThatComputesNaNFailsItsJobsAndNothingElse) {
  TempFolder folder(kSource + "/tests/fixtures/llama/bf16_sharded");
  for (const auto& file : std::filesystem::directory_iterator(folder.path())) {
    if (file.path().extension() == ".safetensors") {
      std::string bytes = slurp(file.path().string());
      std::fill(bytes.end() - 64, bytes.end(), '\xFF');  // BF16 0xFFFF is NaN
      spill(file.path().string(), bytes);
    }
  }
  open_model(folder.path());
  start(1, R"({"model":"m","prompt":"a"})");
  step_until_idle();
  ASSERT_TRUE(sink_.jobs[1].failure);
  EXPECT_EQ(sink_.jobs[1].failure->code, "engine_failed");
  EXPECT_EQ(engine_->step(0), Engine::kIdle);
}

// A device that works for some steps and then no more, as one does whose kernel went wrong.
class FailingRunner final : public Runner {
 public:
  FailingRunner(std::unique_ptr<Runner> runner, int steps)
      : runner_(std::move(runner)), left_(steps) {}
  const char* name() const override { return "failing"; }
  const ModelConfig& config() const override { return runner_->config(); }
  BlockPool& blocks() override { return runner_->blocks(); }
  int64_t block_bytes() const override { return runner_->block_bytes(); }
  int64_t max_parts() const override { return 2; }
  int64_t prefill_tokens() const override { return runner_->prefill_tokens(); }
  Result<std::span<const int32_t>> step(std::span<const SequencePart> parts) override {
    most_parts_ = std::max(most_parts_, parts.size());
    for (const SequencePart& part : parts) {
      below_ = part.sampling.below;
    }
    if (left_-- == 0) {
      return Error{"CUDA step: cudaErrorIllegalAddress (700), an illegal memory access"};
    }
    return runner_->step(parts);
  }
  std::span<const float> logprobs() const override { return runner_->logprobs(); }
  size_t most_parts() const { return most_parts_; }
  int32_t below() const { return below_; }  // of the last part

 private:
  std::unique_ptr<Runner> runner_;
  int left_;
  size_t most_parts_ = 0;
  int32_t below_ = 0;
};

class FailingDeviceTest : public EngineTest {
 protected:
  FailingRunner& open_failing(int steps) {
    auto runner = std::make_unique<FailingRunner>(
        *open_cpu_runner(kModel, cpu_backend(1), 64 << 20, 256), steps);
    FailingRunner& failing = *runner;
    engine_ = *open({.model_dir = kModel, .model_name = "m"}, std::move(runner), sink_);
    return failing;
  }
};

TEST_F(FailingDeviceTest, ADeviceThatFailsIsToldByItsErrorsNameAndTheJobsGoWithTheProcess) {
  open_failing(3);
  for (JobNumber job = 1; job <= 3; ++job) {
    start(job, R"({"model":"m","prompt":"a","max_tokens":30,"ignore_eos":true})");
  }
  std::string why;
  try {
    for (int step = 0; step < 10; ++step) {
      engine_->step(0);
    }
  } catch (const DeviceLost& fault) {
    why = fault.what();
  }
  EXPECT_NE(why.find("cudaErrorIllegalAddress"), std::string::npos) << why;
  for (JobNumber job = 1; job <= 3; ++job) {
    EXPECT_FALSE(sink_.jobs[job].failure) << "who did it is for penstockd to find out";
  }
}

TEST_F(FailingDeviceTest, AStepHoldsNoMorePartsThanTheDeviceTakesAndTheOthersHaveTheirTurn) {
  const FailingRunner& runner = open_failing(1 << 20);
  for (JobNumber job = 1; job <= 5; ++job) {
    start(job, R"({"model":"m","prompt":"a","max_tokens":9,"ignore_eos":true})");
  }
  step_until_idle();
  EXPECT_EQ(runner.most_parts(), 2U);
  for (JobNumber job = 1; job <= 5; ++job) {
    EXPECT_TRUE(sink_.jobs[job].done) << job;
  }
}

TEST_F(FailingDeviceTest, TokensAreDrawnAmongThoseThatTheTokenizerHasNotFromPadding) {
  const FailingRunner& runner = open_failing(1 << 20);
  serve(R"({"prompt":"a","max_tokens":1})");
  EXPECT_EQ(runner.below(), Tokenizer::open(kModel + "/tokenizer.json")->size());
}

TEST_F(EngineTest, FoldersThatDoNotFitTogetherAreRefused) {
  {
    TempFolder folder(kModel);
    std::filesystem::remove(folder / "tokenizer.json");
    const auto opened = open({folder.path(), "m", 0, 1}, sink_);
    ASSERT_FALSE(opened);
    EXPECT_NE(opened.error().message.find("tokenizer.json"), std::string::npos);
  }
  {
    TempFolder folder(kSource + "/tests/fixtures/llama/f32_one_layer");  // 97 tokens
    std::filesystem::copy(kModel + "/tokenizer.json", folder / "tokenizer.json");
    const auto opened = open({folder.path(), "m", 0, 1}, sink_);
    ASSERT_FALSE(opened);
    EXPECT_NE(opened.error().message.find("ids up to 292, but config.json's vocab_size is 97"),
              std::string::npos)
        << opened.error().message;
  }
  const auto starved = open({kModel, "m", kBlockBytes - 1, 1}, sink_);
  ASSERT_FALSE(starved);
  EXPECT_NE(starved.error().message.find("memory"), std::string::npos);
}

}  // namespace
}  // namespace penstock::llama
