#include "worker/engines/http/told_usage.h"

#include <string_view>

namespace penstock::http_engine {
namespace {

using simdjson::dom::element;
using simdjson::dom::object;

constexpr uint64_t kMostTokens = uint64_t{1} << 40;

// A count that is there and cannot be one is a lie; one that is null is not there.
std::optional<uint64_t> count(object from, std::string_view name, bool& lies) {
  element value;
  if (from[name].get(value) != simdjson::SUCCESS || value.is_null()) {
    return std::nullopt;
  }
  uint64_t number = 0;
  if (value.get(number) == simdjson::SUCCESS && number < kMostTokens) {
    return number;
  }
  lies = true;
  return std::nullopt;
}

bool has(object from, std::string_view name) {
  element value;
  return from[name].get(value) == simdjson::SUCCESS;
}

bool object_in(object from, std::string_view name, object& out) {
  return from[name].get(out) == simdjson::SUCCESS;
}

// Anthropic counts what it read from its cache, and wrote to it, apart from the rest.
ToldUsage input_and_output(object usage) {
  ToldUsage told;
  told.prompt = count(usage, "input_tokens", told.lies);
  for (const char* const name : {"cache_creation_input_tokens", "cache_read_input_tokens"}) {
    const auto more = count(usage, name, told.lies);
    if (more && told.prompt) {
      *told.prompt += *more;
    }
  }
  told.completion = count(usage, "output_tokens", told.lies);
  return told;
}

ToldUsage of_two(object usage, std::string_view prompt, std::string_view completion) {
  ToldUsage told;
  told.prompt = count(usage, prompt, told.lies);
  told.completion = count(usage, completion, told.lies);
  return told;
}

// Where there is no completion (embeddings) it has no tokens.
ToldUsage prompt_and_completion(object usage) {
  ToldUsage told = of_two(usage, "prompt_tokens", "completion_tokens");
  if (!told.completion && !told.lies) {
    told.completion = 0;
  }
  return told;
}

}  // namespace

void ToldUsage::update(const ToldUsage& later) {
  lies = later.lies;
  prompt = later.prompt || later.lies ? later.prompt : prompt;
  completion = later.completion || later.lies ? later.completion : completion;
}

std::optional<ToldUsage> read_usage(object from) {
  object usage;
  if (has(from, "done") && has(from, "eval_count")) {
    return of_two(from, "prompt_eval_count", "eval_count");
  }
  if (object_in(from, "details", usage) && has(usage, "generated_tokens")) {
    return of_two(usage, "input_length", "generated_tokens");
  }
  object inner;  // Anthropic's message_start, and OpenAI's response.completed
  const bool told = object_in(from, "usage", usage) ||
                    (object_in(from, "message", inner) && object_in(inner, "usage", usage)) ||
                    (object_in(from, "response", inner) && object_in(inner, "usage", usage));
  if (told && (has(usage, "prompt_tokens") || has(usage, "completion_tokens"))) {
    return prompt_and_completion(usage);
  }
  if (told && (has(usage, "input_tokens") || has(usage, "output_tokens"))) {
    return input_and_output(usage);
  }
  return std::nullopt;
}

}  // namespace penstock::http_engine
