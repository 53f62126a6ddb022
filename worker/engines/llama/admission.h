// Whether a request can ever run here, and with how many tokens. Pure arithmetic on counts.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>

#include "worker/pool/engine.h"

namespace penstock::llama {

struct Limits {
  int64_t context = 0;  // tokens the model was made for: max_position_embeddings
  int64_t cache = 0;    // tokens the whole cache holds
};

// Tokens of the answer when max_tokens is not given: 16 for completions, as OpenAI documents; for
// chat whatever the context, or the cache if that is smaller, has left.
constexpr int64_t kCompletionDefault = 16;

// The answer's largest length for a prompt of `prompt_tokens`, or a refusal that says the numbers:
// status 400, code "context_length_exceeded", param "messages" or "prompt".
std::variant<int64_t, Failure> answer_tokens(int64_t prompt_tokens,
                                             std::optional<uint32_t> max_tokens, bool chat,
                                             const Limits& limits);

}  // namespace penstock::llama
