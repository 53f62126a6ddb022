#include "worker/engines/llama/admission.h"

#include <algorithm>

namespace penstock::llama {
namespace {

constexpr char kCode[] = "context_length_exceeded";

// "This model's maximum context length is 2048 tokens"
std::string bound_of(const Limits& limits) {
  return limits.cache < limits.context ? "This worker's memory holds at most " +
                                             std::to_string(limits.cache) + " tokens of one request"
                                       : "This model's maximum context length is " +
                                             std::to_string(limits.context) + " tokens";
}

// `about`: "at least " where the count is a bound.
Failure too_long(int64_t prompt, std::optional<uint32_t> wanted, bool chat, const Limits& limits,
                 const std::string& about = "") {
  const char* where = chat ? "messages" : "prompt";
  std::string message =
      bound_of(limits) + ". However, you requested " + about +
      std::to_string(prompt + wanted.value_or(1)) + " tokens (" + about + std::to_string(prompt) +
      " in the " + where + ", " + (wanted ? std::to_string(*wanted) : "at least 1") +
      " in the completion). Please reduce the length of the " + where + " or completion.";
  return {400, kCode, std::move(message), where, false};
}

// Whatever the prompt is, so long an answer has no place beside it.
Failure too_much_asked(int64_t prompt, uint32_t wanted, const Limits& limits) {
  const std::string left = std::to_string(limits.most() - prompt);
  return {400, kCode,
          bound_of(limits) +
              ", prompt and answer together, and max_tokens (max_completion_tokens) "
              "is " +
              std::to_string(wanted) + ". The prompt has " + std::to_string(prompt) +
              ", which leaves " + left + ": lower max_tokens to " + left + " or less.",
          "max_tokens", false};
}

}  // namespace

std::optional<Failure> cannot_fit(int64_t least_prompt_tokens,
                                  const openai::CompletionRequest& request, const Limits& limits) {
  if (least_prompt_tokens < limits.most()) {
    return std::nullopt;
  }
  return too_long(least_prompt_tokens, request.max_tokens, request.chat, limits, "at least ");
}

std::variant<int64_t, Failure> answer_tokens(int64_t prompt_tokens,
                                             const openai::CompletionRequest& request,
                                             const Limits& limits) {
  const auto max_tokens = request.max_tokens;
  const int64_t left = limits.most() - prompt_tokens;
  if (left >= 1 && max_tokens && *max_tokens >= limits.most() && *max_tokens > left) {
    return too_much_asked(prompt_tokens, *max_tokens, limits);
  }
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
