// Chooses the next token from logits. Pure: the same logits, settings and random number give the
// same token.
//
// Randomness is counted, not streamed: the number for a job's n-th token is a hash of its seed and
// n, so it does not matter when, or beside which other jobs, the token is drawn.
//
// Sources: nucleus sampling ("top_p"): Holtzman et al., "The Curious Case of Neural Text
// Degeneration" (2020); the hash is SplitMix64: Steele et al., "Fast Splittable Pseudorandom Number
// Generators" (2014).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace penstock::llama {

struct Sampling {
  float temperature = 1.0F;  // 0: always the likeliest token, the lowest id among equals
  float top_p = 1.0F;  // draw from the fewest likeliest tokens that together have this probability
  uint64_t seed = 0;
  int32_t top_k = 0;  // draw from no more than the likeliest this many; 0: from all
  int32_t below = 0;  // draw ids below this only; 0: any. Rows past the tokenizer are padding
};

// Uniform in [0, 1), the same for the same arguments, everywhere.
double uniform(uint64_t seed, uint64_t index);

// The token drawn by `random` in [0, 1). None if a logit is NaN or +infinity: the model is broken,
// not the request.
std::optional<int32_t> sample(std::span<const float> logits, const Sampling& sampling,
                              double random);

}  // namespace penstock::llama
