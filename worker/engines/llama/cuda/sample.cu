// Draws tokens from logits: one block a row.
//
// Requests that shift single tokens have their rows edited and drawn again; the edits keep what was
// there, and put it back, so that probabilities are told of the model's own logits.
//
// Greedy is one pass. Otherwise a token's weight is exp((logit - top) / temperature) in units of
// 2^-40, an integer, so that sums come out the same whatever order threads add in. Which tokens may
// be drawn (top_p, top_k) is a prefix of all tokens in falling order of logit, lowest id first
// among equals. It is found without sorting: one pass adds the weights up in bins of equal width,
// another gathers the tokens of the bin that the prefix ends in, and there the interval of logits
// is halved until one token, or several equal ones, are left. Only a bin of more tokens than there
// is room for, and not all equal, is read again and again. The token is then drawn in order of ids.
//
// Source of the nucleus: see sampler.h.
#include "worker/engines/llama/cuda/device_code.cuh"
#include "worker/engines/llama/runner.h"

namespace penstock::llama::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBins = 1024;
constexpr uint32_t kRoom = 1024;
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

// Some tokens: those at or above a key, or of a bin.
struct Held {
  Count weight;
  Count count;
};

// How much may be drawn: weight that is enough (top_p), and the most tokens (top_k).
struct Bounds {
  Count share;
  Count most;
};

struct Shared {
  Top tops[kWarps];
  Count counts[kWarps];
  Count weights[kWarps];
  // Where a choice ends (choose()).
  Held bins[kBins];
  int bin;     // the one it ends in
  Held above;  // tokens of the bins before it
  Bounds bounds;
  uint32_t gathered;  // tokens of that bin; of the first kRoom, in any order:
  uint32_t keys[kRoom];
  Count key_weights[kRoom];
  uint32_t least;  // of all their keys
  uint32_t largest;
};
static_assert(sizeof(Shared) <= (48 << 10));

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

__device__ inline Bounds bounds_of(const Draw& draw, Count all, int32_t size) {
  Bounds bounds{all, draw.top_k > 0 ? static_cast<Count>(draw.top_k) : static_cast<Count>(size)};
  if (draw.top_p < 1) {
    const auto wanted =
        static_cast<Count>(ceil(static_cast<double>(draw.top_p) * static_cast<double>(all)));
    bounds.share = wanted < 1 ? 1 : wanted < all ? wanted : all;
  }
  return bounds;
}

// Which bin a token falls in: equal parts of the logits from the top to where weights end. The last
// bin is for those without any weight. In falling order of logit.
__device__ inline int bin_of(const Row& row, int32_t id, Count weight) {
  constexpr float kRange = 28;  // exp(-28) is less than 2^-40
  if (weight == 0) {
    return kBins - 1;
  }
  const float at = (row.top - row.logits[id]) / row.temperature * ((kBins - 1) / kRange);
  return at < kBins - 2 ? static_cast<int>(at) : kBins - 2;
}

// Fills the bins, and finds the one that the choice ends in.
__device__ inline void find_bin(const Row& row, const Draw& draw, Shared& shared) {
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    shared.bins[i] = {0, 0};
  }
  __syncthreads();
  for (int32_t i = threadIdx.x; i < row.size; i += kThreads) {
    const Count weight = row.weight(i);
    Held& bin = shared.bins[bin_of(row, i, weight)];
    if (weight > 0) {
      atomicAdd(&bin.weight, weight);
      atomicAdd(&bin.count, Count{1});
    }
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    constexpr int kEach = kBins / kWarp;
    const int lane = threadIdx.x;
    Held mine{0, 0};
    for (int i = lane * kEach; i < (lane + 1) * kEach; ++i) {
      mine.weight += shared.bins[i].weight;
      mine.count += shared.bins[i].count;
    }
    const Bounds bounds = bounds_of(draw, warp_sum(mine.weight), row.size);
    Held upto = mine;
    for (int step = 1; step < kWarp; step *= 2) {
      const Held before{__shfl_up_sync(kAllLanes, upto.weight, step),
                        __shfl_up_sync(kAllLanes, upto.count, step)};
      upto.weight += lane >= step ? before.weight : 0;
      upto.count += lane >= step ? before.count : 0;
    }
    const unsigned enough =
        __ballot_sync(kAllLanes, upto.weight >= bounds.share || upto.count >= bounds.most);
    // Some lane has enough: all of them together have all the weight.
    if (lane == __ffs(static_cast<int>(enough)) - 1) {
      Held above{upto.weight - mine.weight, upto.count - mine.count};
      int bin = lane * kEach;
      while (above.weight + shared.bins[bin].weight < bounds.share &&
             above.count + shared.bins[bin].count < bounds.most) {
        above.weight += shared.bins[bin].weight;
        above.count += shared.bins[bin].count;
        ++bin;
      }
      shared.above = above;
      shared.bin = bin;
      shared.bounds = bounds;
      shared.least = UINT32_MAX;
      shared.largest = 0;
      shared.gathered = 0;
    }
  }
  __syncthreads();
}

// The keys of the bin's tokens: between which they lie, and, where there is room, which they are.
__device__ inline void gather(const Row& row, Shared& shared) {
  for (int32_t i = threadIdx.x; i < row.size; i += kThreads) {
    const Count weight = row.weight(i);
    if (weight > 0 && bin_of(row, i, weight) == shared.bin) {
      const uint32_t key = key_of(row.logits[i]);
      atomicMin(&shared.least, key);
      atomicMax(&shared.largest, key);
      const uint32_t at = atomicAdd(&shared.gathered, 1U);
      if (at < kRoom) {
        shared.keys[at] = key;
        shared.key_weights[at] = weight;
      }
    }
  }
  __syncthreads();
}

// Tokens at or above a key that the bin has.
__device__ inline Held held_in_bin(const Row& row, uint32_t key, Shared& shared) {
  if (shared.gathered > kRoom) {
    return held_from(row, key, shared);
  }
  Held held{0, 0};
  for (uint32_t i = threadIdx.x; i < shared.gathered; i += kThreads) {
    if (shared.keys[i] >= key) {
      held.weight += shared.key_weights[i];
      ++held.count;
    }
  }
  return {shared.above.weight + block_sum(held.weight, shared.weights),
          shared.above.count + block_sum(held.count, shared.counts)};
}

__device__ inline Choice choose(const Row& row, const Draw& draw, Shared& shared) {
  if (draw.top_p >= 1 && draw.top_k <= 0) {
    return {0, 0, 0, held_from(row, 0, shared).weight};
  }
  find_bin(row, draw, shared);
  gather(row, shared);
  const Bounds bounds = shared.bounds;
  // Tokens from key `low` on are enough, or all that have any weight; those from `high` on are not.
  uint32_t low = shared.least;
  uint32_t high = shared.largest + 1;
  Held at_low{shared.above.weight + shared.bins[shared.bin].weight,
              shared.above.count + shared.bins[shared.bin].count};
  Held at_high = shared.above;
  while (high - low > 1 && at_low.count - at_high.count > 1) {
    const uint32_t middle = low + (high - low) / 2;
    const Held held = held_in_bin(row, middle, shared);
    if (held.weight >= bounds.share || held.count >= bounds.most) {
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
  if (at_low.weight >= bounds.share) {
    needed = (bounds.share - at_high.weight + each - 1) / each;
  }
  needed = needed < bounds.most - at_high.count ? needed : bounds.most - at_high.count;
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
