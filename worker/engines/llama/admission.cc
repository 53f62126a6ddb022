#include "worker/engines/llama/admission.h"

#include <algorithm>

namespace penstock::llama {
namespace {

Failure too_long(int64_t prompt, std::optional<uint32_t> wanted, bool chat, const Limits& limits) {
  const char* where = chat ? "messages" : "prompt";
  const bool by_cache = limits.cache < limits.context;
  std::string message = by_cache ? "This worker's memory holds at most " +
                                       std::to_string(limits.cache) + " tokens of one request"
                                 : "This model's maximum context length is " +
                                       std::to_string(limits.context) + " tokens";
  message += ". However, you requested " + std::to_string(prompt + wanted.value_or(1)) +
             " tokens (" + std::to_string(prompt) + " in the " + where + ", " +
             (wanted ? std::to_string(*wanted) : "at least 1") +
             " in the completion). Please reduce the length of the " + where + " or completion.";
  return {400, "context_length_exceeded", std::move(message), where, false};
}

}  // namespace

std::variant<int64_t, Failure> answer_tokens(int64_t prompt_tokens,
                                             const openai::CompletionRequest& request,
                                             const Limits& limits) {
  const auto max_tokens = request.max_tokens;
  const int64_t left = std::min(limits.context, limits.cache) - prompt_tokens;
  if (max_tokens ? *max_tokens > left : left < 1) {
    return too_long(prompt_tokens, max_tokens, request.chat, limits);
  }
  if (max_tokens) {
    return static_cast<int64_t>(*max_tokens);
  }
  const int64_t usual = request.chat ? limits.chat_default : kCompletionDefault;
  return std::min(left, std::max<int64_t>(usual, request.min_tokens));
}

}  // namespace penstock::llama
