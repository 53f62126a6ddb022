#include "worker/engines/llama/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace penstock::llama {
namespace {

// Index of the largest; none if any is no usable number or there are none.
std::optional<int32_t> likeliest(std::span<const float> logits) {
  int32_t best = -1;
  float top = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] < std::numeric_limits<float>::infinity())) {  // true for NaN, too
      return std::nullopt;
    }
    if (logits[i] > top) {
      top = logits[i];
      best = static_cast<int32_t>(i);
    }
  }
  return best < 0 ? std::nullopt : std::optional(best);
}

// Ids in falling order of weight until they hold `share` of the total, or are `most`. Sorts only as
// far as needed: 64 first, as that is nearly always enough, then four times as many.
std::vector<int32_t> nucleus(const std::vector<double>& weights, double share, size_t most) {
  std::vector<int32_t> ids(weights.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto before = [&](int32_t a, int32_t b) {
    return weights[a] != weights[b] ? weights[a] > weights[b] : a < b;
  };
  double held = 0;
  size_t sorted = 0;
  size_t taken = 0;
  most = std::min(most, ids.size());
  for (size_t want = 64; taken < most && (taken == 0 || held < share); want *= 4) {
    const size_t until = std::min(want, ids.size());
    if (until < ids.size()) {
      std::nth_element(ids.begin() + sorted, ids.begin() + until, ids.end(), before);
    }
    std::sort(ids.begin() + sorted, ids.begin() + until, before);
    sorted = until;
    while (taken < std::min(sorted, most) && (taken == 0 || held < share)) {
      held += weights[ids[taken++]];
    }
  }
  ids.resize(taken);
  return ids;
}

}  // namespace

double uniform(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

float reach_of(const Sampling& sampling) {
  return sampling.min_p > 0 ? -sampling.temperature * std::log(sampling.min_p)
                            : std::numeric_limits<float>::infinity();
}

void edit(std::span<const LogitEdit> edits, std::span<float> logits) {
  for (const LogitEdit& each : edits) {
    float& logit = logits[static_cast<size_t>(each.token)];
    logit = (logit > 0 ? logit / each.penalty : logit * each.penalty) + each.add;
  }
}

float logprob_of(std::span<const float> logits, int32_t token, int32_t below) {
  if (below > 0 && static_cast<size_t>(below) < logits.size()) {
    logits = logits.first(static_cast<size_t>(below));
  }
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(logit - top);
  }
  return static_cast<float>(logits[static_cast<size_t>(token)] - top - std::log(sum));
}

std::optional<int32_t> sample(std::span<const float> logits, const Sampling& sampling,
                              double random) {
  if (sampling.below > 0 && static_cast<size_t>(sampling.below) < logits.size()) {
    logits = logits.first(static_cast<size_t>(sampling.below));
  }
  const auto best = likeliest(logits);
  if (!best || sampling.temperature <= 0) {
    return best;
  }
  const double top = logits[*best];
  std::vector<double> weights(logits.size());
  double total = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = std::exp((logits[i] - top) / sampling.temperature);
    total += weights[i];
  }
  std::vector<int32_t> ids;
  if (sampling.top_p < 1 || sampling.top_k > 0) {
    const auto most = sampling.top_k > 0 ? static_cast<size_t>(sampling.top_k) : weights.size();
    ids = nucleus(weights, sampling.top_p * total, most);
    std::sort(ids.begin(), ids.end());  // drawn in order of ids, as on a GPU
    total = 0;
    for (const int32_t id : ids) {
      total += weights[id];
    }
  }
  if (sampling.min_p > 0) {
    if (ids.empty()) {
      ids.resize(weights.size());
      std::iota(ids.begin(), ids.end(), 0);
    }
    const float least = logits[*best] - reach_of(sampling);
    std::erase_if(ids, [&](int32_t id) { return logits[id] < least; });
    total = 0;
    for (const int32_t id : ids) {
      total += weights[id];
    }
  }
  double left = random * total;
  const size_t count = ids.empty() ? weights.size() : ids.size();
  for (size_t i = 0; i < count; ++i) {
    const int32_t id = ids.empty() ? static_cast<int32_t>(i) : ids[i];
    left -= weights[id];
    if (left < 0) {
      return id;
    }
  }
  return best;  // rounding left a crumb
}

}  // namespace penstock::llama
