#include "worker/engines/llama/engine.h"

#include <algorithm>
#include <random>
#include <thread>

#include "shared/base/clock.h"
#include "worker/engines/llama/admission.h"
#include "worker/engines/llama/chat_template.h"
#include "worker/engines/llama/job.h"
#include "worker/engines/llama/json_file.h"
#include "worker/engines/llama/kv_cache.h"
#include "worker/engines/llama/model.h"
#include "worker/engines/llama/tokenizer.h"

namespace penstock::llama {
namespace {

constexpr int64_t kDefaultCacheBytes = int64_t{1}
                                       << 30;  // pages are committed only as they are used

class LlamaEngine final : public Engine {
 public:
  LlamaEngine(LlamaOptions options, std::unique_ptr<Backend> backend, Model model, KvCache cache,
              Tokenizer tokenizer, Sink& sink)
      : options_(std::move(options)),
        backend_(std::move(backend)),
        model_(std::move(model)),
        cache_(std::move(cache)),
        tokenizer_(std::move(tokenizer)),
        template_(tokenizer_),
        limits_{model_.config().max_positions, cache_.blocks() * kBlockTokens},
        next_seed_(std::random_device()()),
        sink_(sink) {}

  std::variant<std::unique_ptr<Plan>, Failure> admit(const Request& request) override;
  void start(JobNumber job, std::unique_ptr<Plan> plan) override;
  int64_t step(int64_t now_ns) override;
  void cancel(JobNumber job) override;

 private:
  std::variant<std::vector<int32_t>, Failure> tokens_of(
      const openai::CompletionRequest& request) const;
  void compose();
  int64_t rows_in_step() const;
  void add_part(Job& job, int64_t& prefill_left);
  void advance(Job& job, std::span<const float> logits);
  bool is_end(const Job& job, int32_t token) const;
  void finish(Job& job, openai::Finish reason);
  void fail(Job& job, const Failure& failure);
  void leave(Job& job);
  void forget_left();

  LlamaOptions options_;
  std::unique_ptr<Backend> backend_;
  Model model_;
  KvCache cache_;
  Tokenizer tokenizer_;
  ChatTemplate template_;
  Limits limits_;
  uint64_t next_seed_;  // for requests that give none
  Sink& sink_;

  std::vector<std::unique_ptr<Job>> jobs_;  // in order of start
  std::vector<SequencePart> parts_;         // this step's
  std::vector<Job*> part_jobs_;             // whose each part is
};

std::variant<std::unique_ptr<Plan>, Failure> LlamaEngine::admit(const Request& request) {
  auto parsed = openai::parse(request);
  if (auto* failure = std::get_if<Failure>(&parsed)) {
    return std::move(*failure);
  }
  auto plan = std::make_unique<LlamaPlan>();
  plan->request = std::move(std::get<openai::CompletionRequest>(parsed));
  auto tokens = tokens_of(plan->request);
  if (auto* failure = std::get_if<Failure>(&tokens)) {
    return std::move(*failure);
  }
  plan->prompt = std::move(std::get<std::vector<int32_t>>(tokens));
  const auto prompt_tokens = static_cast<int64_t>(plan->prompt.size());
  const auto answer =
      answer_tokens(prompt_tokens, plan->request.max_tokens, plan->request.chat, limits_);
  if (const auto* failure = std::get_if<Failure>(&answer)) {
    return *failure;
  }
  plan->max_tokens = std::get<int64_t>(answer);
  plan->memory_bytes = KvCache::blocks_for(prompt_tokens + plan->max_tokens) * cache_.block_bytes();
  plan->model = request.model.empty() ? options_.model_name : request.model;
  plan->sampling = {plan->request.temperature, plan->request.top_p,
                    plan->request.seed.value_or(next_seed_++)};
  if (plan->request.chat) {
    const auto& stops = template_.stops();
    plan->request.stop.insert(plan->request.stop.end(), stops.begin(), stops.end());
  }
  // Only the answer is needed from here on.
  plan->request.messages.clear();
  plan->request.prompt.clear();
  return plan;
}

std::variant<std::vector<int32_t>, Failure> LlamaEngine::tokens_of(
    const openai::CompletionRequest& request) const {
  size_t bytes = request.prompt.size();
  for (const openai::Message& message : request.messages) {
    bytes += message.content.size();
  }
  // A text that cannot fit however it is cut is not worth cutting: this step is on every caller's
  // time.
  const auto least = static_cast<int64_t>(bytes / tokenizer_.longest());
  const auto room = answer_tokens(least, request.max_tokens, request.chat, limits_);
  if (const auto* failure = std::get_if<Failure>(&room)) {
    return *failure;
  }
  if (request.chat) {
    return template_.render(request.messages);
  }
  std::vector<int32_t> tokens = tokenizer_.encode(request.prompt);
  if (tokenizer_.first()) {
    tokens.insert(tokens.begin(), *tokenizer_.first());
  }
  if (tokens.empty() && model_.config().bos >= 0) {
    tokens.push_back(model_.config().bos);  // from nothing: as a text begins
  }
  if (tokens.empty()) {
    return Failure{400, "invalid_request",
                   "prompt is empty; this model needs at least one token to go on from", "prompt",
                   false};
  }
  return tokens;
}

void LlamaEngine::start(JobNumber job, std::unique_ptr<Plan> plan) {
  std::unique_ptr<LlamaPlan> ours(static_cast<LlamaPlan*>(plan.release()));
  jobs_.push_back(std::make_unique<Job>(job, std::move(ours), realtime_ns() / kNsPerSec, sink_));
}

int64_t LlamaEngine::step(int64_t now_ns) {
  if (jobs_.empty()) {
    return kIdle;
  }
  compose();
  const int64_t begun = monotonic_ns();
  const auto logits = model_.forward(parts_, cache_);
  if (!logits) {
    for (auto& job : jobs_) {
      fail(*job, {500, "engine_failed", logits.error().message, "", true});
    }
    forget_left();
    return kIdle;
  }
  const int64_t worked_ns = monotonic_ns() - begun;
  const int64_t rows = rows_in_step();
  const auto vocabulary = static_cast<size_t>(model_.config().vocabulary);
  size_t row = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    Job& job = *part_jobs_[i];
    job.device_ns += static_cast<uint64_t>(worked_ns * job.step_tokens / rows);  // rounded down
    if (parts_[i].wants_logits) {
      advance(job, logits->subspan(vocabulary * row++, vocabulary));
    }
  }
  forget_left();
  return jobs_.empty() ? kIdle : now_ns;
}

int64_t LlamaEngine::rows_in_step() const {
  int64_t rows = 0;
  for (const SequencePart& part : parts_) {
    rows += static_cast<int64_t>(part.tokens.size());
  }
  return rows;
}

// Fills parts_ and part_jobs_: at least one part, since the oldest job always has its blocks.
void LlamaEngine::compose() {
  parts_.clear();
  part_jobs_.clear();
  int64_t prefill_left = std::max<int64_t>(1, options_.prefill_tokens);
  bool room = true;  // once one has to wait, those after it do, too: first come, first served
  for (auto& job : jobs_) {
    if (job->blocks.empty() && room) {
      job->blocks = cache_.take(job->plan->memory_bytes / cache_.block_bytes());
      room = !job->blocks.empty();
    }
    if (!job->blocks.empty()) {
      add_part(*job, prefill_left);
    }
  }
}

void LlamaEngine::add_part(Job& job, int64_t& prefill_left) {
  SequencePart part;
  part.position = static_cast<int32_t>(job.cached);
  part.blocks = job.blocks;
  if (job.is_answering()) {
    part.tokens = std::span(&job.last_token, 1);
    part.wants_logits = true;
  } else {
    const std::span<const int32_t> prompt = job.plan->prompt;
    const auto left = static_cast<int64_t>(prompt.size()) - job.cached;
    part.tokens = prompt.subspan(job.cached, std::min(left, prefill_left));
    part.wants_logits = left <= prefill_left;
    prefill_left -= static_cast<int64_t>(part.tokens.size());
  }
  if (part.tokens.empty()) {
    return;
  }
  job.step_tokens = static_cast<int64_t>(part.tokens.size());
  job.cached += job.step_tokens;
  parts_.push_back(part);
  part_jobs_.push_back(&job);
}

// The job's next token is drawn from its logits.
void LlamaEngine::advance(Job& job, std::span<const float> logits) {
  const LlamaPlan& plan = *job.plan;
  if (plan.max_tokens == 0) {
    return finish(job, openai::Finish::kLength);
  }
  const auto token = sample(logits, plan.sampling, uniform(plan.sampling.seed, job.generated));
  if (!token) {
    return fail(
        job, {500, "engine_failed",
              "the model computed something that is not a number; its weights may be damaged", "",
              false});
  }
  ++job.generated;
  job.last_token = *token;
  if (is_end(job, *token)) {
    return finish(job, openai::Finish::kStop);
  }
  if (!job.answer.text(tokenizer_.bytes(*token))) {
    return finish(job, openai::Finish::kStop);
  }
  if (static_cast<int64_t>(job.generated) >= plan.max_tokens) {
    finish(job, openai::Finish::kLength);
  }
}

bool LlamaEngine::is_end(const Job& job, int32_t token) const {
  const openai::CompletionRequest& request = job.plan->request;
  if (request.ignore_eos) {
    return false;
  }
  const auto& eos = model_.config().eos;
  const auto& turn = template_.end_tokens();
  return std::find(eos.begin(), eos.end(), token) != eos.end() ||
         (request.chat && std::find(turn.begin(), turn.end(), token) != turn.end());
}

void LlamaEngine::finish(Job& job, openai::Finish reason) {
  job.answer.finish(reason, job.usage());
  leave(job);
}

void LlamaEngine::fail(Job& job, const Failure& failure) {
  sink_.failed(job.number, failure);
  leave(job);
}

// Frees what the job holds; `job` is gone at the end of the step.
void LlamaEngine::leave(Job& job) {
  cache_.give_back(job.blocks);
  job.blocks.clear();
  job.left = true;
}

void LlamaEngine::forget_left() {
  std::erase_if(jobs_, [](const auto& job) { return job->left; });
}

void LlamaEngine::cancel(JobNumber number) {
  for (auto& job : jobs_) {
    if (job->number == number) {
      leave(*job);
    }
  }
  forget_left();
}

// Reads everything the folder has to say before any of it is used.
Result<std::unique_ptr<Engine>> assemble(const LlamaOptions& options,
                                         std::unique_ptr<Backend> backend, Sink& sink) {
  auto model = Model::open(options.model_dir, *backend);
  if (!model) {
    return model.error();
  }
  const std::string tokenizer_path = options.model_dir + "/tokenizer.json";
  auto tokenizer = Tokenizer::open(tokenizer_path);
  if (!tokenizer) {
    return tokenizer.error();
  }
  if (tokenizer->size() > model->config().vocabulary) {
    return Error{tokenizer_path + ": has token ids up to " + std::to_string(tokenizer->size() - 1) +
                 ", but config.json's vocab_size is " + std::to_string(model->config().vocabulary)};
  }
  const int64_t memory = options.memory_bytes > 0 ? options.memory_bytes : kDefaultCacheBytes;
  auto cache = KvCache::create(model->config(), memory, *backend);
  if (!cache) {
    return cache.error();
  }
  return std::unique_ptr<Engine>(std::make_unique<LlamaEngine>(options, std::move(backend),
                                                               std::move(*model), std::move(*cache),
                                                               std::move(*tokenizer), sink));
}

}  // namespace

Result<std::unique_ptr<Engine>> open(const LlamaOptions& options, std::unique_ptr<Backend> backend,
                                     Sink& sink) {
  return assemble(options, std::move(backend), sink);
}

Result<std::unique_ptr<Engine>> open(const LlamaOptions& options, Sink& sink) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return assemble(options, cpu_backend(options.threads > 0 ? options.threads : cores), sink);
}

}  // namespace penstock::llama
