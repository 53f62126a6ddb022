// Draws tokens from logits: one block a row.
//
// Requests that shift single tokens have their rows edited and drawn again; the edits keep what was
// there, and put it back, so that probabilities are told of the model's own logits.
//
// Greedy is one pass. Otherwise a token's weight is exp((logit - top) / temperature) in units of
// 2^-40, an integer, so that sums come out the same whatever order threads add in. Which tokens may
// be drawn (top_p, top_k) is a prefix of all tokens in falling order of logit, lowest id first
// among equals; it is found without sorting, by halving the interval of logits its end lies in, and
// ends early when a single token is left there. The token is then drawn in order of ids.
//
// Source of the nucleus: see sampler.h.
#include "worker/engines/llama/cuda/device_code.cuh"
#include "worker/engines/llama/runner.h"

namespace penstock::llama::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr float kUnit = 1099511627776.0F;  // 2^40; a vocabulary of 2^21 sums to 2^61 at most

using Count = unsigned long long;  // the type CUDA's shuffles take

struct Top {
  float logit;
  int32_t id;
  bool bad;  // NaN or +infinity was seen
};

// The larger; the lower id among equals. Any order of calls gives the same.
__device__ inline Top larger(const Top& a, const Top& b) {
  const bool first = a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  return {first ? a.logit : b.logit, first ? a.id : b.id, a.bad || b.bad};
}

struct Shared {
  Top tops[kWarps];
  Count counts[kWarps];
  Count weights[kWarps];
};

__device__ inline Top find_top(const float* logits, int32_t n, Shared& shared) {
  Top top{-INFINITY, INT32_MAX, false};
  for (int32_t i = threadIdx.x; i < n; i += kThreads) {
    const float v = logits[i];
    if (!(v < INFINITY)) {
      top.bad = true;
    } else if (v > -INFINITY) {
      top = larger(top, {v, i, false});
    }
  }
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const Top other{__shfl_xor_sync(kAllLanes, top.logit, step),
                    __shfl_xor_sync(kAllLanes, top.id, step),
                    __shfl_xor_sync(kAllLanes, static_cast<int>(top.bad), step) != 0};
    top = larger(top, other);
  }
  if (threadIdx.x % kWarp == 0) {
    shared.tops[threadIdx.x / kWarp] = top;
  }
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) {
    top = larger(top, shared.tops[warp]);
  }
  return top;
}

// Orders as the logits do; -0 is 0.
__device__ inline uint32_t key_of(float logit) {
  const uint32_t bits = __float_as_uint(logit + 0.0F);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

struct Row {
  const float* logits;
  int32_t size;
  float top;
  float temperature;

  __device__ Count weight(int32_t id) const {
    return static_cast<Count>(expf((logits[id] - top) / temperature) * kUnit);
  }
};

// Tokens at or above a key.
struct Held {
  Count weight;
  Count count;
};

__device__ inline Held held_from(const Row& row, uint32_t key, Shared& shared) {
  Held held{0, 0};
  for (int32_t i = threadIdx.x; i < row.size; i += kThreads) {
    if (key_of(row.logits[i]) >= key) {
      held.weight += row.weight(i);
      ++held.count;
    }
  }
  return {block_sum(held.weight, shared.weights), block_sum(held.count, shared.counts)};
}

// Who may be drawn: keys from `above` on, and those of [from, above) up to id `last`.
struct Choice {
  uint32_t from;
  uint32_t above;
  int32_t last;
  Count weight;  // of all of them

  __device__ bool has(uint32_t key, int32_t id) const {
    return key >= above || (key >= from && id <= last);
  }
};

// The id of the n-th token of key `key`, n from 1.
__device__ inline int32_t nth_of(const Row& row, uint32_t key, Count n, Shared& shared) {
  int32_t low = 0;
  int32_t high = row.size - 1;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    Count count = 0;
    for (int32_t i = threadIdx.x; i <= middle; i += kThreads) {
      count += key_of(row.logits[i]) == key ? 1 : 0;
    }
    if (block_sum(count, shared.counts) >= n) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

__device__ inline Choice choose(const Row& row, const Draw& draw, Shared& shared) {
  const Held all = held_from(row, 0, shared);
  if (draw.top_p >= 1 && draw.top_k <= 0) {
    return {0, 0, 0, all.weight};
  }
  Count share = all.weight;
  if (draw.top_p < 1) {
    const auto wanted =
        static_cast<Count>(ceil(static_cast<double>(draw.top_p) * static_cast<double>(all.weight)));
    share = wanted < 1 ? 1 : wanted < all.weight ? wanted : all.weight;
  }
  const Count most = draw.top_k > 0 ? static_cast<Count>(draw.top_k) : all.count;
  // Tokens from key `low` on are enough, those from `high` on are not.
  uint32_t low = 0;
  uint32_t high = key_of(row.top) + 1;
  Held at_low = all;
  Held at_high{0, 0};
  while (high - low > 1 && at_low.count - at_high.count > 1) {
    const uint32_t middle = low + (high - low) / 2;
    const Held held = held_from(row, middle, shared);
    if (held.weight >= share || held.count >= most) {
      low = middle;
      at_low = held;
    } else {
      high = middle;
      at_high = held;
    }
  }
  // What is left in [low, high) is one token, or several that are equal: as many as are needed.
  const Count equals = at_low.count - at_high.count;
  const Count each = (at_low.weight - at_high.weight) / equals;
  Count needed = equals;
  if (each > 0 && at_low.weight >= share) {
    needed = (share - at_high.weight + each - 1) / each;
  }
  needed = needed < most - at_high.count ? needed : most - at_high.count;
  needed = needed < equals ? needed : equals;
  const int32_t last = needed == equals ? row.size : nth_of(row, low, needed, shared);
  return {low, high, last, at_high.weight + needed * each};
}

// What is left of a choice within `reach` of the largest logit.
__device__ inline Choice within(const Row& row, Choice choice, float reach, Shared& shared) {
  const uint32_t least = key_of(row.top - reach);
  choice.from = choice.from > least ? choice.from : least;
  choice.above = choice.above > least ? choice.above : least;
  Count weight = 0;
  for (int32_t i = threadIdx.x; i < row.size; i += kThreads) {
    weight += choice.has(key_of(row.logits[i]), i) ? row.weight(i) : 0;
  }
  choice.weight = block_sum(weight, shared.weights);
  return choice;
}

// Draws in order of ids: each warp adds up its stretch of them, then the one whose stretch holds
// the drawn point walks it.
__device__ inline void draw_from(const Row& row, const Choice& choice, double random,
                                 int32_t* token, Shared& shared) {
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  const int32_t stretch = (row.size + kThreads - 1) / kThreads * kWarp;
  const auto weight_at = [&](int32_t id) -> Count {
    const bool in = id < row.size && choice.has(key_of(row.logits[id]), id);
    return in ? row.weight(id) : 0;
  };
  Count sum = 0;
  for (int32_t i = lane; i < stretch; i += kWarp) {
    sum += weight_at(warp * stretch + i);
  }
  sum = warp_sum(sum);
  __syncthreads();  // nobody still reads the weights of the last sum
  if (lane == 0) {
    shared.weights[warp] = sum;
  }
  __syncthreads();
  auto left = static_cast<Count>(random * static_cast<double>(choice.weight));
  left = left < choice.weight ? left : choice.weight - 1;
  int chosen = 0;
  while (chosen < kWarps - 1 && left >= shared.weights[chosen]) {
    left -= shared.weights[chosen++];
  }
  if (warp != chosen) {
    return;
  }
  for (int32_t i = lane; i < stretch; i += kWarp) {
    const int32_t id = warp * stretch + i;
    Count upto = weight_at(id);
    for (int step = 1; step < kWarp; step *= 2) {
      const Count before = __shfl_up_sync(kAllLanes, upto, step);
      upto += lane >= step ? before : 0;
    }
    const unsigned beyond = __ballot_sync(kAllLanes, upto > left);
    if (beyond != 0) {
      if (lane == __ffs(static_cast<int>(beyond)) - 1) {
        *token = id;
      }
      return;
    }
    left -= __shfl_sync(kAllLanes, upto, kWarp - 1);
  }
}

__global__ void __launch_bounds__(kThreads)
    sample_rows(int32_t* tokens, const float* logits, const Draw* draws, int32_t vocabulary) {
  __shared__ Shared shared;
  const Draw draw = draws[blockIdx.x];
  const float* row_logits = logits + static_cast<int64_t>(blockIdx.x) * vocabulary;
  const int32_t ids = draw.below > 0 && draw.below < vocabulary ? draw.below : vocabulary;
  const Top top = find_top(row_logits, ids, shared);
  if (threadIdx.x == 0) {
    const bool none = top.bad || top.logit == -INFINITY;
    tokens[blockIdx.x] = none ? Runner::kNoToken : top.id;
  }
  if (draw.temperature > 0 && !top.bad && top.logit > -INFINITY) {
    __syncthreads();  // the likeliest, in case, is written before the drawn one
    const Row row{row_logits, ids, top.logit, draw.temperature};
    Choice choice = choose(row, draw, shared);
    if (draw.reach < INFINITY) {
      choice = within(row, choice, draw.reach, shared);
    }
    draw_from(row, choice, draw.random, tokens + blockIdx.x, shared);
  }
}

// One block a row: its edits are edits[begins[row]] .. edits[begins[row + 1]].
__global__ void __launch_bounds__(kThreads)
    edit_rows(float* logits, LogitEdit* edits, const int32_t* begins, int32_t vocabulary) {
  float* row = logits + static_cast<int64_t>(blockIdx.x) * vocabulary;
  for (int32_t i = begins[blockIdx.x] + threadIdx.x; i < begins[blockIdx.x + 1]; i += kThreads) {
    LogitEdit& edit = edits[i];
    const float logit = row[edit.token];
    edit.before = logit;
    row[edit.token] = (logit > 0 ? logit / edit.penalty : logit * edit.penalty) + edit.add;
  }
}

__global__ void __launch_bounds__(kThreads)
    restore_rows(float* logits, const LogitEdit* edits, const int32_t* begins, int32_t vocabulary) {
  float* row = logits + static_cast<int64_t>(blockIdx.x) * vocabulary;
  for (int32_t i = begins[blockIdx.x] + threadIdx.x; i < begins[blockIdx.x + 1]; i += kThreads) {
    row[edits[i].token] = edits[i].before;
  }
}

__global__ void __launch_bounds__(kThreads)
    score_rows(float* logprobs, const int32_t* tokens, const float* logits, const Draw* draws,
               int32_t vocabulary) {
  __shared__ Shared shared;
  __shared__ float sums[kWarps];
  const int32_t below = draws[blockIdx.x].below;
  const int32_t ids = below > 0 && below < vocabulary ? below : vocabulary;
  const float* row = logits + static_cast<int64_t>(blockIdx.x) * vocabulary;
  const Top top = find_top(row, ids, shared);
  float sum = 0;
  for (int32_t i = threadIdx.x; i < ids; i += kThreads) {
    sum += expf(row[i] - top.logit);
  }
  sum = block_sum(sum, sums);
  const int32_t token = tokens[blockIdx.x];
  if (threadIdx.x == 0) {
    logprobs[blockIdx.x] = token < 0 ? 0 : row[token] - top.logit - logf(sum);
  }
}

}  // namespace

void edit(CUstream_st* stream, float* logits, LogitEdit* edits, const int32_t* begins, int64_t rows,
          int64_t vocabulary) {
  PENSTOCK_LAUNCH(edit_rows, dim3(static_cast<unsigned>(rows)), kThreads, 0, stream, logits, edits,
                  begins, static_cast<int32_t>(vocabulary));
}

void restore(CUstream_st* stream, float* logits, const LogitEdit* edits, const int32_t* begins,
             int64_t rows, int64_t vocabulary) {
  PENSTOCK_LAUNCH(restore_rows, dim3(static_cast<unsigned>(rows)), kThreads, 0, stream, logits,
                  edits, begins, static_cast<int32_t>(vocabulary));
}

void score(CUstream_st* stream, float* logprobs, const int32_t* tokens, const float* logits,
           const Draw* draws, int64_t rows, int64_t vocabulary) {
  PENSTOCK_LAUNCH(score_rows, dim3(static_cast<unsigned>(rows)), kThreads, 0, stream, logprobs,
                  tokens, logits, draws, static_cast<int32_t>(vocabulary));
}

void sample(CUstream_st* stream, int32_t* tokens, const float* logits, const Draw* draws,
            int64_t rows, int64_t vocabulary) {
  PENSTOCK_LAUNCH(sample_rows, dim3(static_cast<unsigned>(rows)), kThreads, 0, stream, tokens,
                  logits, draws, static_cast<int32_t>(vocabulary));
}

}  // namespace penstock::llama::cuda
