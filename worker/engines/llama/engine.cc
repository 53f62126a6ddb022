#include "worker/engines/llama/engine.h"

#include <algorithm>
#include <random>

#include "shared/base/clock.h"
#include "worker/engines/llama/admission.h"
#include "worker/engines/llama/chat_template.h"
#include "worker/engines/llama/generation_config.h"
#include "worker/engines/llama/job.h"
#include "worker/engines/llama/json_file.h"
#include "worker/engines/llama/tokenizer.h"

namespace penstock::llama {
namespace {

constexpr uint64_t kProgressNs =
    100'000'000;  // of a job's device time, between two words of progress

class LlamaEngine final : public Engine {
 public:
  LlamaEngine(LlamaOptions options, std::unique_ptr<Runner> runner, Tokenizer tokenizer,
              GenerationConfig generation, const Result<ChatFiles>& chat_files, Sink& sink)
      : options_(std::move(options)),
        runner_(std::move(runner)),
        config_(runner_->config()),
        blocks_(runner_->blocks()),
        tokenizer_(std::move(tokenizer)),
        template_(tokenizer_, chat_files),
        defaults_(generation.defaults),
        ends_(std::move(generation.eos)),
        parser_(options_.rules),
        limits_{config_.max_positions, blocks_.blocks() * kBlockTokens,
                options_.default_max_tokens},
        next_seed_(std::random_device()()),
        sink_(sink) {
    ends_.insert(ends_.end(), config_.eos.begin(), config_.eos.end());
    if (options_.log) {
      options_.log(chat());
    }
  }

  // It reads what never changes, and next_seed_, which nothing else does.
  std::variant<std::unique_ptr<Plan>, Failure> admit(const Request& request) override;
  bool admits_beside_steps() const override { return true; }
  void start(JobNumber job, std::unique_ptr<Plan> plan) override;
  int64_t step(int64_t now_ns) override;
  bool cancel(JobNumber job) override;
  void pause(JobNumber job) override { set_paused(job, true); }
  void resume(JobNumber job) override { set_paused(job, false); }
  Figures figures() const override;
  std::string chat() const override {
    const std::string slow = runner_->slow();
    return (template_.usable() ? "chat is asked in " : "chat is refused: ") + template_.name() +
           (slow.empty() ? "" : "; " + slow);
  }

 private:
  Sampling sampling_of(const openai::CompletionRequest& request);
  TokenEdits edits_of(const LlamaPlan& plan) const;
  std::optional<Failure> unknown_token(const openai::CompletionRequest& request) const;
  std::vector<int32_t> ends_of(const openai::CompletionRequest& request) const;
  std::variant<std::vector<int32_t>, Failure> tokens_of(
      const openai::CompletionRequest& request) const;
  void compose();
  int64_t rows_in_step() const;
  void add_part(Job& job, int64_t& prefill_left);
  void advance(Job& job, int32_t token, float logprob);
  bool is_end(const Job& job, int32_t token) const;
  void finish(Job& job, openai::Finish reason);
  void fail(Job& job, const Failure& failure);
  void leave(Job& job);
  void forget_left();
  void set_paused(JobNumber number, bool paused);

  LlamaOptions options_;
  std::unique_ptr<Runner> runner_;
  const ModelConfig& config_;
  BlockPool& blocks_;
  Tokenizer tokenizer_;
  ChatTemplate template_;
  openai::SamplingSettings defaults_;  // the model's own
  std::vector<int32_t> ends_;          // tokens that end a text
  openai::Parser parser_;
  Limits limits_;
  uint64_t next_seed_;  // for requests that give none
  Sink& sink_;

  std::vector<std::unique_ptr<Job>> jobs_;  // in order of start
  std::vector<SequencePart> parts_;         // this step's
  std::vector<Job*> part_jobs_;             // whose each part is
  Figures done_;                            // but for the cache
};

std::variant<std::unique_ptr<Plan>, Failure> LlamaEngine::admit(const Request& request) {
  auto parsed = parser_.parse(request);
  if (auto* failure = std::get_if<Failure>(&parsed)) {
    return std::move(*failure);
  }
  auto plan = std::make_unique<LlamaPlan>();
  plan->request = std::move(std::get<openai::CompletionRequest>(parsed));
  if (auto failure = unknown_token(plan->request)) {
    return *std::move(failure);
  }
  auto tokens = tokens_of(plan->request);
  if (auto* failure = std::get_if<Failure>(&tokens)) {
    return std::move(*failure);
  }
  plan->prompt = std::move(std::get<std::vector<int32_t>>(tokens));
  const auto prompt_tokens = static_cast<int64_t>(plan->prompt.size());
  const auto answer = answer_tokens(prompt_tokens, plan->request, limits_);
  if (const auto* failure = std::get_if<Failure>(&answer)) {
    return *failure;
  }
  plan->max_tokens = std::get<int64_t>(answer);
  plan->memory_bytes =
      BlockPool::blocks_for(prompt_tokens + plan->max_tokens) * runner_->block_bytes();
  plan->model = request.model.empty() ? options_.model_name : request.model;
  plan->sampling = sampling_of(plan->request);
  plan->edits = edits_of(*plan);
  if (plan->request.chat) {
    const auto& stops = template_.stops();
    plan->request.stop.insert(plan->request.stop.end(), stops.begin(), stops.end());
  }
  // Only the answer is needed from here on.
  plan->request.messages.clear();
  plan->request.prompt.clear();
  return plan;
}

Sampling LlamaEngine::sampling_of(const openai::CompletionRequest& request) {
  const openai::SamplingSettings settings = openai::either(request.sampling, defaults_);
  return {.temperature = settings.temperature.value_or(1),
          .top_p = settings.top_p.value_or(1),
          .seed = request.seed.value_or(next_seed_++),
          .top_k = settings.top_k.value_or(0),
          .below = static_cast<int32_t>(tokenizer_.size()),
          .min_p = settings.min_p.value_or(0)};
}

TokenEdits LlamaEngine::edits_of(const LlamaPlan& plan) const {
  const openai::CompletionRequest& request = plan.request;
  const TokenEdits::Settings settings{
      .repetition_penalty =
          openai::either(request.sampling, defaults_).repetition_penalty.value_or(1),
      .presence_penalty = request.presence_penalty,
      .frequency_penalty = request.frequency_penalty,
      .min_tokens = request.min_tokens};
  return {settings, plan.prompt, request.logit_bias, ends_of(request)};
}

// A request may name tokens by their ids; which there are, only the model knows.
std::optional<Failure> LlamaEngine::unknown_token(const openai::CompletionRequest& request) const {
  const auto count = static_cast<int64_t>(tokenizer_.size());
  const auto failure = [&](const std::string& param, int64_t id) {
    return Failure{400, "invalid_request",
                   param + " names token " + std::to_string(id) + "; this model has " +
                       std::to_string(count) + " tokens, from 0 on.",
                   param, false};
  };
  for (const int32_t id : request.stop_token_ids) {
    if (id >= count) {
      return failure("stop_token_ids", id);
    }
  }
  for (const openai::TokenBias& each : request.logit_bias) {
    if (each.token >= count) {
      return failure("logit_bias", each.token);
    }
  }
  return std::nullopt;
}

// All tokens that end its answer.
std::vector<int32_t> LlamaEngine::ends_of(const openai::CompletionRequest& request) const {
  std::vector<int32_t> ends = request.stop_token_ids;
  if (!request.ignore_eos) {
    ends.insert(ends.end(), ends_.begin(), ends_.end());
    if (request.chat) {
      const auto& turn = template_.end_tokens();
      ends.insert(ends.end(), turn.begin(), turn.end());
    }
  }
  return ends;
}

std::variant<std::vector<int32_t>, Failure> LlamaEngine::tokens_of(
    const openai::CompletionRequest& request) const {
  size_t bytes = request.prompt.size();
  for (const openai::Message& message : request.messages) {
    bytes += message.content.size();
  }
  // A text that cannot fit however it is cut is not worth cutting: others wait to be read.
  const auto least = static_cast<int64_t>(bytes / tokenizer_.longest());
  if (auto failure = cannot_fit(least, request, limits_)) {
    return *std::move(failure);
  }
  if (request.chat) {
    return template_.render(request.messages, realtime_ns() / kNsPerSec);
  }
  std::vector<int32_t> tokens = tokenizer_.encode(request.prompt);
  if (tokenizer_.first()) {
    tokens.insert(tokens.begin(), *tokenizer_.first());
  }
  if (tokens.empty() && config_.bos >= 0) {
    tokens.push_back(config_.bos);  // from nothing: as a text begins
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
  if (parts_.empty()) {
    return kIdle;  // all are paused
  }
  const int64_t begun = monotonic_ns();
  const auto tokens = runner_->step(parts_);
  if (!tokens) {
    throw DeviceLost(tokens.error().message);
  }
  const int64_t worked_ns = monotonic_ns() - begun;
  const int64_t rows = rows_in_step();
  ++done_.steps;
  done_.step_jobs += parts_.size();
  size_t drawn = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    Job& job = *part_jobs_[i];
    job.device_ns += static_cast<uint64_t>(worked_ns * job.step_tokens / rows);  // rounded down
    if (parts_[i].wants_logits) {
      const auto logprobs = runner_->logprobs();
      advance(job, (*tokens)[drawn], drawn < logprobs.size() ? logprobs[drawn] : 0);
      ++drawn;
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

// Fills parts_ and part_jobs_: at least one part, unless jobs are paused, since the oldest job
// always has its blocks.
void LlamaEngine::compose() {
  parts_.clear();
  part_jobs_.clear();
  int64_t prefill_left = runner_->prefill_tokens();
  bool room = true;  // once one has to wait, those after it do, too: first come, first served
  for (auto& job : jobs_) {
    if (static_cast<int64_t>(parts_.size()) == runner_->max_parts()) {
      break;
    }
    if (job->blocks.empty() && room) {
      job->blocks = blocks_.take(job->plan->memory_bytes / runner_->block_bytes());
      room = !job->blocks.empty();
    }
    if (!job->blocks.empty() && !job->paused) {
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
    done_.prompt_tokens += part.tokens.size();
  }
  if (part.tokens.empty()) {
    return;
  }
  part.sampling = job.plan->sampling;
  part.random = uniform(job.plan->sampling.seed, job.generated);
  part.edits = job.plan->edits.now();
  part.wants_logprob = job.plan->request.logprobs;
  job.step_tokens = static_cast<int64_t>(part.tokens.size());
  job.cached += job.step_tokens;
  parts_.push_back(part);
  part_jobs_.push_back(&job);
}

// The job's next token has been drawn.
void LlamaEngine::advance(Job& job, int32_t token, float logprob) {
  const LlamaPlan& plan = *job.plan;
  if (plan.max_tokens == 0) {
    return finish(job, openai::Finish::kLength);
  }
  if (token == Runner::kNoToken) {
    return fail(
        job, {500, "engine_failed",
              "the model computed something that is not a number; its weights may be damaged", "",
              false});
  }
  ++job.generated;
  ++done_.generation_tokens;
  job.last_token = token;
  job.plan->edits.drawn(token);
  if (is_end(job, token)) {
    return finish(job, openai::Finish::kStop);
  }
  if (!job.answer.text(tokenizer_.bytes(token), logprob)) {
    return finish(job, openai::Finish::kStop);
  }
  if (static_cast<int64_t>(job.generated) >= plan.max_tokens) {
    return finish(job, openai::Finish::kLength);
  }
  if (job.device_ns - job.told_ns >= kProgressNs) {
    job.told_ns = job.device_ns;
    sink_.progress(job.number,
                   static_cast<double>(job.generated) / static_cast<double>(plan.max_tokens),
                   static_cast<uint32_t>(job.generated), static_cast<uint32_t>(plan.max_tokens));
  }
}

bool LlamaEngine::is_end(const Job& job, int32_t token) const {
  const openai::CompletionRequest& request = job.plan->request;
  const auto has = [&](const auto& tokens) {
    return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
  };
  return has(request.stop_token_ids) ||
         (!request.ignore_eos && (has(ends_) || (request.chat && has(template_.end_tokens()))));
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
  blocks_.give_back(job.blocks);
  job.blocks.clear();
  job.left = true;
}

void LlamaEngine::forget_left() {
  std::erase_if(jobs_, [](const auto& job) { return job->left; });
}

bool LlamaEngine::cancel(JobNumber number) {
  for (auto& job : jobs_) {
    if (job->number == number) {
      leave(*job);
    }
  }
  forget_left();
  return true;
}

void LlamaEngine::set_paused(JobNumber number, bool paused) {
  for (auto& job : jobs_) {
    job->paused = job->number == number ? paused : job->paused;
  }
}

Figures LlamaEngine::figures() const {
  Figures figures = done_;
  figures.kv_blocks = static_cast<uint64_t>(blocks_.blocks());
  figures.kv_blocks_used = static_cast<uint64_t>(blocks_.blocks() - blocks_.free_blocks());
  return figures;
}

void tell_of(const GenerationConfig& generation,
             const std::function<void(const std::string&)>& log) {
  const std::string defaults = in_words(generation.defaults);
  if (log && !defaults.empty()) {
    log("where a request does not say, the model's generation_config.json does: " + defaults);
  }
  for (const std::string& key : generation.unheeded) {
    if (log) {
      log("generation_config.json: " + key + " is not implemented and has no effect");
    }
  }
}

}  // namespace

Result<std::unique_ptr<Engine>> open(const LlamaOptions& options, std::unique_ptr<Runner> runner,
                                     Sink& sink) {
  const std::string tokenizer_path = options.model_dir + "/tokenizer.json";
  auto tokenizer = Tokenizer::open(tokenizer_path);
  if (!tokenizer) {
    return tokenizer.error();
  }
  const int64_t vocabulary = runner->config().vocabulary;
  if (tokenizer->size() > vocabulary) {
    return Error{tokenizer_path + ": has token ids up to " + std::to_string(tokenizer->size() - 1) +
                 ", but config.json's vocab_size is " + std::to_string(vocabulary)};
  }
  auto generation = load_generation_config(options.model_dir, vocabulary);
  if (!generation) {
    return generation.error();
  }
  tell_of(*generation, options.log);
  return std::unique_ptr<Engine>(std::make_unique<LlamaEngine>(
      options, std::move(runner), std::move(*tokenizer), std::move(*generation),
      load_chat_files(options.model_dir), sink));
}

Result<std::unique_ptr<Engine>> open(const LlamaOptions& options, Sink& sink) {
  auto runner = open_runner({.model_dir = options.model_dir,
                             .device = options.device,
                             .memory_bytes = options.memory_bytes,
                             .threads = options.threads,
                             .max_parts = options.slots,
                             .prefill_tokens = options.prefill_tokens,
                             .high_priority = options.high_priority,
                             .sleeps = options.sleeps,
                             .log = options.log});
  if (!runner) {
    return runner.error();
  }
  return open(options, std::move(*runner), sink);
}

}  // namespace penstock::llama
