// What one request does to the logits of single tokens, from one token to the next: penalties for
// those that have come, biases, and the ends that may not come yet.
//
// Penalties come first, then biases, then bans. The repetition penalty is for the tokens of the
// prompt and of the answer, the other two for those of the answer alone (as in vLLM; the sum is the
// one in OpenAI's API reference, "frequency and presence penalties").
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "worker/engines/llama/sampler.h"
#include "worker/pool/openai.h"

namespace penstock::llama {

class TokenEdits {
 public:
  struct Settings {
    float repetition_penalty = 1;
    float presence_penalty = 0;
    float frequency_penalty = 0;
    uint32_t min_tokens = 0;
  };
  // None.
  TokenEdits() = default;
  // `ends` are banned until min_tokens were drawn. REQUIRES: no token twice in `biases`.
  TokenEdits(const Settings& settings, std::span<const int32_t> prompt,
             std::span<const openai::TokenBias> biases, std::span<const int32_t> ends);

  // For the next token: each token at most once. Valid until drawn().
  std::span<const LogitEdit> now() const { return edits_; }
  // O(1), but for the one that ends the bans.
  void drawn(int32_t token);

 private:
  struct Note {
    float bias = 0;
    uint32_t drawn = 0;
    bool banned = false;
  };
  size_t place_of(int32_t token);
  void settle(size_t place);

  Settings settings_;
  uint32_t drawn_ = 0;
  std::vector<LogitEdit> edits_;
  std::vector<Note> notes_;  // of each edit
  std::unordered_map<int32_t, size_t> places_;
};

}  // namespace penstock::llama
