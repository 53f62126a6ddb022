// Estimates: what a request for a model usually is and uses, learned from those that have finished.
//
//   estimates = header | names of models, 8 sets of 8 | three means for each name
//
// A model has its place in the set that its name's hash gives; where all eight are taken by others,
// it takes the place of one of them. Each mean is of all values while they are few, then of the
// last sixteen or so (an exponential mean of weight 1/16), so that a model whose use changes is
// known anew soon.
//
// The memory is shared by processes that may be killed at any instruction, and everything in it is
// a hint: a mean and its count are one word, written whole; two that learn at the same moment may
// lose one of the two values; and a place that changes hands meanwhile may keep one value of its
// last owner's, which soon weighs nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "shared/base/result.h"
#include "shared/metrics/stamp.h"

namespace penstock::metrics {

// What is known of a model; before anything was learned, what is most often so.
struct Estimate {
  double bytes_per_token = 4;
  double completion_tokens = 256;
  double gpu_ms = 1000;
};

// One finished request. A zero teaches nothing.
struct Finished {
  uint64_t prompt_bytes = 0;
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  uint64_t gpu_ms = 0;
};

// The view that one process has of the estimates, copied freely; it owns nothing. A view that was
// not made by create() or attach() learns nothing.
class Estimates {
 public:
  static constexpr size_t kSets = 8;
  static constexpr size_t kWays = 8;

  // Values are taken for no less and no more than these, however odd a request was: what one caller
  // sends must not make the requests of all others look like nothing, or like more than there is.
  static constexpr double kBytesPerToken[2] = {1, 8};
  static constexpr double kCompletionTokens[2] = {1, 131'072};
  static constexpr double kGpuMs[2] = {1, 3'600'000};

  static constexpr size_t bytes() noexcept { return sizeof(Memory); }

  Estimates() = default;

  // Makes empty estimates in `memory`, which is overwritten. An Error if it is smaller than bytes()
  // or not aligned to a cache line. REQUIRES: nobody else uses the memory; it outlives every view.
  static Result<Estimates> create(std::span<std::byte> memory);

  // The estimates that are already there. An Error says why this version cannot use them.
  static Result<Estimates> attach(std::span<std::byte> memory);

  // `model` is a hash of the model's name, as in learn().
  Estimate of(uint64_t model) const noexcept;

  void learn(uint64_t model, const Finished& request) noexcept;

 private:
  enum What { kRatio, kCompletion, kGpu, kMeans };

  struct Means {
    uint64_t words[kMeans];  // the mean, a float, and how many values it is of; 0: of none
  };

  struct Memory {
    alignas(kCacheLine) Stamp stamp;
    alignas(kCacheLine) uint64_t models[kSets * kWays];  // 0: free
    Means means[kSets * kWays];
  };

  explicit Estimates(std::span<std::byte> memory) noexcept;

  size_t find(uint64_t model) const noexcept;
  size_t take(uint64_t model) noexcept;

  Memory* memory_ = nullptr;
};

}  // namespace penstock::metrics
