// Chooses the next token from logits. Pure: the same logits, settings and random number give the
// same token.
//
// Randomness is counted, not streamed: the number for a job's n-th token is a hash of its seed and
// n, so it does not matter when, or beside which other jobs, the token is drawn.
//
// Where several bounds say what may be drawn (top_p, top_k, min_p), the narrowest counts. What they
// leave is drawn in order of ids, on the CPU as on a GPU (cuda/sample.cu).
//
// Sources: nucleus sampling ("top_p"): Holtzman et al., "The Curious Case of Neural Text
// Degeneration" (2020); min_p: Nguyen et al., "Turning Up the Heat" (2024); the hash is SplitMix64:
// Steele et al., "Fast Splittable Pseudorandom Number Generators" (2014).
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
  float min_p = 0;    // draw none less likely than this share of the likeliest; 0: any
};

// How far below the largest a logit may lie, by min_p.
float reach_of(const Sampling& sampling);

// What is done to one token's logit before a token is drawn.
struct LogitEdit {
  int32_t token = 0;
  float penalty = 1;  // divides a logit above 0, multiplies one below (Keskar et al., "CTRL", 2019)
  float add = 0;      // to that
  float before = 0;   // room for whoever edits in place: what the logit was
};
// REQUIRES: each token once, and below logits.size().
void edit(std::span<const LogitEdit> edits, std::span<float> logits);

// The logarithm of the probability that the model gives the token, at temperature 1, all those
// below `below` (0: any) having a part.
float logprob_of(std::span<const float> logits, int32_t token, int32_t below);

// Uniform in [0, 1), the same for the same arguments, everywhere.
double uniform(uint64_t seed, uint64_t index);

// The token drawn by `random` in [0, 1). None if a logit is NaN or +infinity: the model is broken,
// not the request.
std::optional<int32_t> sample(std::span<const float> logits, const Sampling& sampling,
                              double random);

}  // namespace penstock::llama
