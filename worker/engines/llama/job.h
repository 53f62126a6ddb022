// A request on its way through the llama engine: read (LlamaPlan), then running (Job).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/engines/llama/sampler.h"
#include "worker/engines/llama/token_edits.h"
#include "worker/pool/openai.h"

namespace penstock::llama {

struct LlamaPlan final : Plan {
  openai::CompletionRequest request;
  std::string model;            // echoed to the caller
  std::vector<int32_t> prompt;  // at least one token
  int64_t max_tokens = 0;       // of the answer
  Sampling sampling;
  TokenEdits edits;
};

struct Job {
  Job(JobNumber n, std::unique_ptr<LlamaPlan> p, int64_t created_unix_s, Sink& sink)
      : number(n),
        plan(std::move(p)),
        answer(n, plan->request, plan->model, created_unix_s, sink) {}

  bool is_answering() const { return cached >= static_cast<int64_t>(plan->prompt.size()); }
  Usage usage() const { return {plan->prompt.size(), generated, device_ns}; }

  const JobNumber number;
  const std::unique_ptr<LlamaPlan> plan;
  openai::Answer answer;
  std::vector<int32_t> blocks;  // empty: waits for room in the cache
  int64_t cached = 0;  // tokens whose keys and values are in the cache, or will be after this step
  int64_t step_tokens = 0;  // of this step; the job's share of its time
  int32_t last_token = -1;  // drawn, not yet in the cache
  uint64_t generated = 0;   // tokens drawn, the ending one included
  uint64_t device_ns = 0;
  uint64_t told_ns = 0;  // of device_ns, when progress was said last
  bool paused = false;
  bool left = false;  // done, failed or cancelled; to be forgotten
};

}  // namespace penstock::llama
