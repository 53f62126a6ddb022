// The llama engine: serves POST /v1/completions and /v1/chat/completions from a Hugging Face model
// folder.
//
// Batching is continuous: each step takes one token of every job that is answering and up to
// `prefill_tokens` of the prompts of those that are not yet, oldest first, through the model
// together. A long prompt is thus read over several steps and never holds up the others for longer
// than one; it is cut into tokens beside the steps, on another thread (worker/pool/admit_thread.h).
// A job's text depends on its prompt, its settings and its seed only, not on its company (model.h,
// sampler.h); on a GPU up to rounding, by which a draw may differ (cuda/runner.h).
//
// The same code drives the model on the CPU and on a GPU: both are a Runner (runner.h).
//
// Memory: a job holds cache blocks for its prompt and its longest possible answer from the moment
// it runs (block_pool.h); Plan::memory_bytes is exactly that. Should the pool start more jobs than
// the cache holds, the last ones wait here.
//
// A device that fails is lost with its process: step() throws DeviceLost, and says nothing of the
// jobs.
//
// Text in a prompt is content: "<|eot_id|>" written by a caller is eight or so ordinary tokens, in
// completions, too (added_tokens.h). A model whose chat template cannot be used serves completions
// alone, and says why.
//
// Usage::device_ns: each step's time on the device, from the first row in to the last logits out,
// is shared over the jobs in it by their tokens. Who waits, for the cache or for others' prompts,
// pays nothing.
//
// Source: Yu et al., "Orca" (OSDI 2022); Agrawal et al., "Sarathi-Serve" (OSDI 2024) for prompts in
// chunks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "shared/base/result.h"
#include "worker/engines/llama/admission.h"
#include "worker/engines/llama/device.h"
#include "worker/pool/engine.h"
#include "worker/pool/openai.h"

namespace penstock::llama {

struct LlamaOptions {
  std::string model_dir;       // config.json, *.safetensors, tokenizer.json, and what else it has
  std::string model_name;      // echoed to callers that name none
  int64_t memory_bytes = 0;    // of the key-value cache; 0: see device.h. Weights are not counted
  int threads = 0;             // on the CPU; 0: as many as there are cores
  int64_t prefill_tokens = 0;  // prompt tokens per step, all jobs together; 0: see device.h
  std::string device = "cpu";  // see device.h
  int64_t slots = 256;         // jobs at once
  openai::Rules rules;         // of requests
  int64_t default_max_tokens = kChatDefault;    // of a chat that gives no max_tokens
  bool high_priority = true;                    // on a GPU that others share
  bool sleeps = false;                          // while a GPU works; else the thread stays awake
  std::function<void(const std::string&)> log;  // lines for the operator; may be empty
};

// Reads and checks the model; an Error names the file and what is wrong with it. `sink` must
// outlive the engine.
Result<std::unique_ptr<Engine>> open(const LlamaOptions& options, Sink& sink);

// The same with a model that is on its device already.
Result<std::unique_ptr<Engine>> open(const LlamaOptions& options, std::unique_ptr<Runner> runner,
                                     Sink& sink);

}  // namespace penstock::llama
