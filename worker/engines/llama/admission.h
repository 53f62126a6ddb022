// Whether a request can ever run here, and with how many tokens. Pure arithmetic on counts.
//
// A job holds cache for its longest possible answer (block_pool.h), so an answer whose length is
// not asked for is bounded by the operator: the rest of a long context would be the whole cache.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>

#include "worker/pool/engine.h"
#include "worker/pool/openai.h"

namespace penstock::llama {

constexpr int64_t kCompletionDefault = 16;  // as OpenAI documents
constexpr int64_t kChatDefault = 4096;

struct Limits {
  int64_t context = 0;                  // tokens the model was made for: max_position_embeddings
  int64_t cache = 0;                    // tokens the whole cache holds
  int64_t chat_default = kChatDefault;  // tokens of a chat's answer when max_tokens is not given

  int64_t most() const { return context < cache ? context : cache; }  // prompt and answer
};

// A refusal, as answer_tokens() has it, of what is too long however many more tokens the prompt
// has.
std::optional<Failure> cannot_fit(int64_t least_prompt_tokens,
                                  const openai::CompletionRequest& request, const Limits& limits);

// The answer's largest length for a prompt of `prompt_tokens`, or a refusal that says the numbers:
// status 400, code "context_length_exceeded", param "messages" or "prompt"; where max_tokens alone
// takes all, "max_tokens". Without max_tokens it is the default, or min_tokens if that is more, but
// never more than context and cache have left.
std::variant<int64_t, Failure> answer_tokens(int64_t prompt_tokens,
                                             const openai::CompletionRequest& request,
                                             const Limits& limits);

}  // namespace penstock::llama
