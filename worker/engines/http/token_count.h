// What a job is charged: what its server told, or our own estimate where it told nothing, or
// nothing that can be true.
//
// The estimate is the bytes of text over the bytes of a token. The latter is learnt from answers
// whose tokens were told, and begins at 4.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "worker/engines/http/told_usage.h"
#include "worker/pool/engine.h"

namespace penstock::http_engine {

class TokenSize {
 public:
  // A text of `bytes` bytes had `tokens` tokens.
  void learn(uint64_t bytes, uint64_t tokens);
  // 0 for no bytes; else at least 1.
  uint64_t tokens(uint64_t bytes) const;

 private:
  double bytes_a_token_ = 4;
};

struct TokenSizes {
  TokenSize prompt;
  TokenSize completion;
};

// What is known of one job's text.
struct Counted {
  std::optional<ToldUsage> told;
  bool text = false;  // it used tokens
  uint64_t prompt_bytes = 0;
  uint64_t completion_bytes = 0;
};

// The usage, without device_ns. `doubt`: what is odd about it, or empty.
Usage settle(const Counted& counted, TokenSizes& sizes, std::string& doubt);

}  // namespace penstock::http_engine
