#include "shared/metrics/estimates.h"

#include <algorithm>
#include <bit>

namespace penstock::metrics {
namespace {

constexpr uint64_t kMagic = 0x7365737365756773;  // "sguesses"
constexpr uint64_t kVersion = 1;
constexpr std::string_view kWhat = "model estimates";

constexpr uint32_t kWeighted = 16;  // values after which the newest has 1/16 of the weight
constexpr size_t kNowhere = Estimates::kSets * Estimates::kWays;

float mean_of(uint64_t word) noexcept { return std::bit_cast<float>(static_cast<uint32_t>(word)); }
uint32_t count_of(uint64_t word) noexcept { return static_cast<uint32_t>(word >> 32); }

// A mean that is there, or `otherwise`.
double read(const uint64_t& word, double otherwise) noexcept {
  const uint64_t seen = __atomic_load_n(&word, __ATOMIC_RELAXED);
  return count_of(seen) == 0 ? otherwise : static_cast<double>(mean_of(seen));
}

void add(uint64_t& word, double value, const double (&bounds)[2]) noexcept {
  const uint64_t seen = __atomic_load_n(&word, __ATOMIC_RELAXED);
  const uint32_t count = std::min(count_of(seen) + 1, kWeighted);
  const double before = count == 1 ? 0 : static_cast<double>(mean_of(seen));
  const auto mean = static_cast<float>(before + (std::clamp(value, bounds[0], bounds[1]) - before) /
                                                    static_cast<double>(count));
  __atomic_store_n(&word, static_cast<uint64_t>(count) << 32 | std::bit_cast<uint32_t>(mean),
                   __ATOMIC_RELAXED);
}

}  // namespace

Estimates::Estimates(std::span<std::byte> memory) noexcept
    : memory_(reinterpret_cast<Memory*>(memory.data())) {}

Result<Estimates> Estimates::create(std::span<std::byte> memory) {
  if (Status fit = check_memory(memory, bytes(), kWhat); !fit) {
    return fit.error();
  }
  clear(memory);
  write_stamp(memory, kMagic, kVersion);
  return Estimates(memory);
}

Result<Estimates> Estimates::attach(std::span<std::byte> memory) {
  if (Status stamp = check_stamp(memory, bytes(), kMagic, kVersion, kWhat); !stamp) {
    return stamp.error();
  }
  return Estimates(memory);
}

Estimate Estimates::of(uint64_t model) const noexcept {
  const Estimate usual;
  const size_t place = find(model);
  if (place == kNowhere) {
    return usual;
  }
  const Means& means = memory_->means[place];
  return {.bytes_per_token = read(means.words[kRatio], usual.bytes_per_token),
          .completion_tokens = read(means.words[kCompletion], usual.completion_tokens),
          .gpu_ms = read(means.words[kGpu], usual.gpu_ms)};
}

void Estimates::learn(uint64_t model, const Finished& request) noexcept {
  size_t place = find(model);
  place = place == kNowhere ? take(model) : place;
  if (place == kNowhere) {
    return;
  }
  uint64_t* words = memory_->means[place].words;
  if (request.prompt_bytes != 0 && request.prompt_tokens != 0) {
    add(words[kRatio],
        static_cast<double>(request.prompt_bytes) / static_cast<double>(request.prompt_tokens),
        kBytesPerToken);
  }
  if (request.completion_tokens != 0) {
    add(words[kCompletion], static_cast<double>(request.completion_tokens), kCompletionTokens);
  }
  if (request.gpu_ms != 0) {
    add(words[kGpu], static_cast<double>(request.gpu_ms), kGpuMs);
  }
}

size_t Estimates::find(uint64_t model) const noexcept {
  model += model == 0 ? 1 : 0;
  const size_t first = model % kSets * kWays;
  for (size_t i = first; memory_ != nullptr && i < first + kWays; ++i) {
    if (__atomic_load_n(&memory_->models[i], __ATOMIC_ACQUIRE) == model) {
      return i;
    }
  }
  return kNowhere;
}

// A free place for the model, or another's; kNowhere if somebody else took it at this moment.
size_t Estimates::take(uint64_t model) noexcept {
  if (memory_ == nullptr) {
    return kNowhere;
  }
  model += model == 0 ? 1 : 0;
  const size_t first = model % kSets * kWays;
  size_t place = first + (model >> 32) % kWays;
  for (size_t i = first; i < first + kWays; ++i) {
    if (__atomic_load_n(&memory_->models[i], __ATOMIC_RELAXED) == 0) {
      place = i;
      break;
    }
  }
  uint64_t seen = __atomic_load_n(&memory_->models[place], __ATOMIC_RELAXED);
  for (uint64_t& word : memory_->means[place].words) {
    __atomic_store_n(&word, 0, __ATOMIC_RELAXED);
  }
  const bool mine = __atomic_compare_exchange_n(&memory_->models[place], &seen, model, false,
                                                __ATOMIC_RELEASE, __ATOMIC_RELAXED);
  return mine ? place : kNowhere;
}

}  // namespace penstock::metrics
