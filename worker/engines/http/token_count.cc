#include "worker/engines/http/token_count.h"

#include <algorithm>
#include <cmath>

namespace penstock::http_engine {
namespace {

constexpr double kWeight = 1.0 / 16;  // of the newest
constexpr double kLeast = 1;
constexpr double kMost = 16;  // above, it was not text

}  // namespace

void TokenSize::learn(uint64_t bytes, uint64_t tokens) {
  const double size = tokens == 0 ? 0 : static_cast<double>(bytes) / static_cast<double>(tokens);
  if (size >= kLeast && size <= kMost) {
    bytes_a_token_ += kWeight * (size - bytes_a_token_);
  }
}

uint64_t TokenSize::tokens(uint64_t bytes) const {
  return static_cast<uint64_t>(std::ceil(static_cast<double>(bytes) / bytes_a_token_));
}

Usage settle(const Counted& counted, TokenSizes& sizes, std::string& doubt) {
  Usage usage;
  if (!counted.told && !counted.text) {
    return usage;
  }
  const ToldUsage told = counted.told.value_or(ToldUsage());
  // A prompt that is there has tokens.
  const bool prompt = told.prompt && (*told.prompt > 0 || counted.prompt_bytes == 0);
  usage.prompt_tokens = prompt ? *told.prompt : sizes.prompt.tokens(counted.prompt_bytes);
  usage.completion_tokens =
      told.completion ? *told.completion : sizes.completion.tokens(counted.completion_bytes);
  usage.estimated = !prompt || !told.completion;
  if (!usage.estimated) {
    sizes.prompt.learn(counted.prompt_bytes, usage.prompt_tokens);
    sizes.completion.learn(counted.completion_bytes, usage.completion_tokens);
    return usage;
  }
  doubt = !counted.told ? "it told no usage"
          : told.lies   ? "its usage cannot be"
                        : "its usage lacks a count, or its prompt_tokens are 0";
  doubt += ": estimated at " + std::to_string(usage.prompt_tokens) + " and " +
           std::to_string(usage.completion_tokens) + " tokens";
  return usage;
}

}  // namespace penstock::http_engine
