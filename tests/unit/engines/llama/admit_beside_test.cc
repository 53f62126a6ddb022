// Prompts are read on another thread while the engine steps.
#include <poll.h>

#include <map>

#include "shared/base/mutex.h"
#include "tests/unit/engines/llama/fixtures.h"
#include "worker/engines/llama/engine.h"
#include "worker/pool/admit_thread.h"

namespace penstock::llama {
namespace {

class TextSink final : public Sink {
 public:
  void head(JobNumber, int, std::string_view, int64_t, std::string_view) override {}
  void chunk(JobNumber job, std::string_view bytes) override { bodies[job] += bytes; }
  void progress(JobNumber, double, uint32_t, uint32_t) override {}
  void done(JobNumber job, const Usage&) override { texts[job] = text_of(bodies[job]); }
  void failed(JobNumber job, const Failure& failure) override { texts[job] = failure.message; }

  static std::string text_of(const std::string& body) {
    simdjson::dom::parser parser;
    const simdjson::dom::element choice = parser.parse(body)["choices"].at(0);
    std::string_view text;
    return std::string(choice["text"].get(text) == simdjson::SUCCESS
                           ? text
                           : choice["message"]["content"].get_string().value());
  }

  std::map<JobNumber, std::string> bodies, texts;
};

// A request lasts for as long as it is held.
Request request_of(const std::string& text, bool chat) {
  auto body = std::make_shared<const std::string>(
      chat ? R"({"model":"m","messages":[{"role":"user","content":")" + text +
                 R"("}],"max_tokens":10,"temperature":0})"
           : R"({"model":"m","prompt":")" + text + R"(","max_tokens":10,"temperature":0})");
  return {.method = "POST",
          .path = chat ? "/v1/chat/completions" : "/v1/completions",
          .content_type = "application/json",
          .body = *body,
          .storage = body};
}

// Reads requests that say "wait" only once it may.
class Gated final : public Engine {
 public:
  explicit Gated(std::unique_ptr<Engine> engine) : engine_(std::move(engine)) {}
  std::variant<std::unique_ptr<Plan>, Failure> admit(const Request& request) override {
    if (request.body.find("wait") != std::string_view::npos) {
      const MutexLock lock(mutex_);
      while (!open_) {
        opened_.wait(mutex_);
      }
    }
    return engine_->admit(request);
  }
  void start(JobNumber job, std::unique_ptr<Plan> plan) override {
    engine_->start(job, std::move(plan));
  }
  int64_t step(int64_t now_ns) override { return engine_->step(now_ns); }
  bool cancel(JobNumber job) override { return engine_->cancel(job); }
  void open() {
    {
      const MutexLock lock(mutex_);
      open_ = true;
    }
    opened_.notify_all();
  }

 private:
  std::unique_ptr<Engine> engine_;
  Mutex mutex_;
  CondVar opened_;
  bool open_ GUARDED_BY(mutex_) = false;
};

class AdmitBesideTest : public testing::Test {
 protected:
  std::unique_ptr<Engine> open_demo() {
    auto opened = open({kDemo, "demo", 64 << 20, 2, 64}, sink_);
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }
  static void step_until_idle(Engine& engine) {
    while (engine.step(17) != Engine::kIdle) {
    }
  }
  static size_t start_read(AdmitThread& thread, Engine& engine) {
    auto read = thread.take();
    for (auto& each : read) {
      EXPECT_TRUE(std::holds_alternative<std::unique_ptr<Plan>>(each.verdict));
      engine.start(each.id.number, std::move(std::get<std::unique_ptr<Plan>>(each.verdict)));
    }
    return read.size();
  }
  TextSink sink_;
};

TEST_F(AdmitBesideTest, TheEngineSaysThatItMay) { EXPECT_TRUE(open_demo()->admits_beside_steps()); }

TEST_F(AdmitBesideTest, AnAnswerIsWrittenToItsEndWhileAPromptIsBeingRead) {
  Gated engine(open_demo());
  AdmitThread thread(engine);
  engine.start(1, std::get<std::unique_ptr<Plan>>(engine.admit(request_of("the quick", false))));
  thread.add({2, false}, request_of("wait", false));
  step_until_idle(engine);
  EXPECT_TRUE(sink_.texts.contains(1));
  EXPECT_EQ(start_read(thread, engine), 0U);
  engine.open();
  pollfd read{thread.fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&read, 1, 20'000), 1);
  EXPECT_EQ(start_read(thread, engine), 1U);
  step_until_idle(engine);
  EXPECT_TRUE(sink_.texts.contains(2));
}

TEST_F(AdmitBesideTest, AnswersAreTheSameHoweverPromptsAreRead) {
  constexpr JobNumber kJobs = 40;
  const auto request = [](JobNumber job) {
    return request_of("once upon " + std::string(job, 'a') + " time", job % 3 == 0);
  };
  auto engine = open_demo();
  for (JobNumber job = 1; job <= kJobs; ++job) {
    engine->start(job, std::get<std::unique_ptr<Plan>>(engine->admit(request(job))));
    step_until_idle(*engine);
  }
  const auto alone = std::exchange(sink_.texts, {});
  sink_.bodies.clear();
  AdmitThread thread(*engine);
  for (JobNumber job = 1; job <= kJobs; ++job) {
    thread.add({job, false}, request(job));
  }
  while (sink_.texts.size() < kJobs) {
    start_read(thread, *engine);
    engine->step(17);
  }
  EXPECT_EQ(sink_.texts, alone);
}

}  // namespace
}  // namespace penstock::llama
