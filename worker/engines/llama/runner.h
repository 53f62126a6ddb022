// A model on a device, ready to run: its weights, the blocks of its key-value cache, and one step
// at a time from tokens to the next tokens.
//
// This is where the engine (engine.h: which jobs, what of their prompts, when they end) meets the
// device. Two are here: cpu_runner.h, and cuda/runner.h. open_runner() (device.h) chooses.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "shared/base/result.h"
#include "worker/engines/llama/block_pool.h"
#include "worker/engines/llama/config.h"
#include "worker/engines/llama/sampler.h"

namespace penstock::llama {

// One sequence's part of a step.
struct SequencePart {                // NOLINT(*Padding): by what they are about
  std::span<const int32_t> tokens;   // consecutive, at least one, each below config.vocabulary
  int32_t position = 0;              // of tokens[0]; all positions before are in the cache
  std::span<const int32_t> blocks;   // its block table, long enough for the last token
  bool wants_logits = false;         // of the last token, and the token drawn from them
  Sampling sampling;                 // how that is drawn
  double random = 0;                 // ... by which number in [0, 1)
  std::span<const LogitEdit> edits;  // ... and what is done to the logits before
  bool wants_logprob = false;        // of the token drawn, from the logits as they were
};

class Runner {
 public:
  // Drawn where the logits were no numbers: the model is broken, not the request.
  static constexpr int32_t kNoToken = -1;

  virtual ~Runner() = default;

  // What runs here, for people: "cpu avx512", "NVIDIA H100 80GB HBM3" ...
  virtual const char* name() const = 0;
  virtual const ModelConfig& config() const = 0;

  // The cache's blocks. The caller takes and gives back; a part's blocks are its own.
  virtual BlockPool& blocks() = 0;
  virtual int64_t block_bytes() const = 0;  // of one, over all layers

  // The largest step: parts, and of those that are longer than one token, tokens together.
  virtual int64_t max_parts() const = 0;
  virtual int64_t prefill_tokens() const = 0;

  // The tokens drawn for the parts that want logits, in order; valid until the next call. An Error
  // is the device's and final: it names what happened there, and the process is best ended.
  virtual Result<std::span<const int32_t>> step(std::span<const SequencePart> parts) = 0;

  // The log-probability of each token that the last step drew; 0 where it was not wanted. Empty if
  // it was wanted nowhere. Valid until the next step.
  virtual std::span<const float> logprobs() const = 0;

  // What makes it slower than this device need be, for the operator. Empty: nothing. Does not
  // change.
  virtual std::string slow() const { return {}; }
};

}  // namespace penstock::llama
