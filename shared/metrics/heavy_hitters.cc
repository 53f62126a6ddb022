#include "shared/metrics/heavy_hitters.h"

#include <algorithm>
#include <array>

namespace penstock::metrics {
namespace {

constexpr uint64_t kMagic = 0x7265707065656b73;  // "skeepper"
constexpr uint64_t kVersion = 1;
constexpr std::string_view kWhat = "sketch of the worst offenders";
constexpr uint64_t kOne = uint64_t{1} << 32;  // one count in a bucket's word
constexpr unsigned kAttempts = 4;             // then a refusal goes uncounted

// kDecay[c] * 2^-32 is 1.08^-c, the probability that a count of c falls by one. Larger counts than
// there are here never fall: it would happen less than once in four billion times.
constexpr auto kDecay = [] {
  std::array<uint32_t, 288> decay{};
  double probability = 1;
  for (size_t c = 0; c < decay.size(); ++c) {
    decay[c] = static_cast<uint32_t>(probability * 0xffffffff);
    probability /= 1.08;
  }
  return decay;
}();

// All bits of the input in each bit of the output (the finalizer of MurmurHash3, A. Appleby).
uint64_t mix(uint64_t x) noexcept {
  x = (x ^ x >> 33) * 0xff51afd7ed558ccd;
  x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53;
  return x ^ x >> 33;
}

uint64_t count_of(uint64_t word) noexcept { return word >> 32; }

HeavyBucket read(const HeavyBucket* bucket) noexcept {
  return {__atomic_load_n(&bucket->key, __ATOMIC_ACQUIRE),
          __atomic_load_n(&bucket->word, __ATOMIC_ACQUIRE)};
}

bool cas(HeavyBucket* bucket, const HeavyBucket& from, const HeavyBucket& to) noexcept {
  __extension__ using Wide = unsigned __int128;
  using Aliased [[gnu::may_alias]] = Wide;
  return __sync_bool_compare_and_swap(reinterpret_cast<Aliased*>(bucket),
                                      Wide{from.word} << 64 | from.key,
                                      Wide{to.word} << 64 | to.key);
}

// Puts an offender where it belongs in out[0, size), which is sorted; the last may fall out.
size_t insert(std::span<Offender> out, size_t size, const Offender& offender) noexcept {
  const auto end = out.begin() + static_cast<std::ptrdiff_t>(size);
  const auto at = std::find_if(out.begin(), end,
                               [&](const Offender& other) { return other.count < offender.count; });
  if (at == out.end()) {
    return size;
  }
  const size_t grown = std::min(size + 1, out.size());
  std::move_backward(at, out.begin() + static_cast<std::ptrdiff_t>(grown - 1),
                     out.begin() + static_cast<std::ptrdiff_t>(grown));
  *at = offender;
  return grown;
}

}  // namespace

HeavyHitters::HeavyHitters(std::span<std::byte> memory) noexcept
    : header_(reinterpret_cast<HeavyHeader*>(memory.data())),
      buckets_(reinterpret_cast<HeavyBucket*>(memory.data() + sizeof(HeavyHeader))) {}

Result<HeavyHitters> HeavyHitters::create(std::span<std::byte> memory) {
  if (Status fit = check_memory(memory, bytes(), kWhat); !fit) {
    return fit.error();
  }
  clear(memory);
  write_stamp(memory, kMagic, kVersion);
  return HeavyHitters(memory);
}

Result<HeavyHitters> HeavyHitters::attach(std::span<std::byte> memory) {
  if (Status stamp = check_stamp(memory, bytes(), kMagic, kVersion, kWhat); !stamp) {
    return stamp.error();
  }
  return HeavyHitters(memory);
}

void HeavyHitters::note(uint64_t key, uint32_t tag, uint64_t salt) noexcept {
  if (header_ == nullptr) {
    return;
  }
  key += key == 0 ? 1 : 0;  // 0 is what an empty bucket has
  const uint64_t hash = mix(key);
  HeavyBucket* const first = place(hash, 0);
  HeavyBucket* const second = place(hash, 1);
  for (unsigned attempt = 0; attempt < kAttempts; ++attempt) {
    if (count_if_mine(first, key) || count_if_mine(second, key)) {
      return;
    }
    const HeavyBucket a = read(first);
    const HeavyBucket b = read(second);
    const bool take_first = a.key == 0 || (b.key != 0 && count_of(a.word) <= count_of(b.word));
    const bool settled = weaken(take_first ? first : second, take_first ? a : b, {key, kOne | tag},
                                mix(hash ^ salt) >> 32);
    if (settled) {
      return;
    }
  }
}

bool HeavyHitters::count_if_mine(HeavyBucket* bucket, uint64_t key) noexcept {
  const HeavyBucket seen = read(bucket);
  if (seen.key != key) {
    return false;
  }
  if (count_of(seen.word) != UINT32_MAX) {
    __atomic_fetch_add(&bucket->word, kOne, __ATOMIC_RELAXED);
  }
  return true;
}

// False if somebody else changed the bucket meanwhile: perhaps it is the newcomer's own now.
bool HeavyHitters::weaken(HeavyBucket* bucket, const HeavyBucket& seen, const HeavyBucket& newcomer,
                          uint64_t dice) noexcept {
  const uint64_t count = count_of(seen.word);
  if (seen.key != 0 && (count >= kDecay.size() || dice >= kDecay[count])) {
    return true;
  }
  const bool falls_to_nothing = seen.key == 0 || count <= 1;
  const HeavyBucket next = falls_to_nothing ? newcomer : HeavyBucket{seen.key, seen.word - kOne};
  return cas(bucket, seen, next);
}

size_t HeavyHitters::top(std::span<Offender> out) const noexcept {
  size_t size = 0;
  for (size_t i = 0; header_ != nullptr && i < kRows * kWidth; ++i) {
    const HeavyBucket seen = read(&buckets_[i]);
    if (seen.key == 0 || __atomic_load_n(&buckets_[i].key, __ATOMIC_ACQUIRE) != seen.key) {
      continue;
    }
    Offender offender{seen.key, count_of(seen.word), static_cast<uint32_t>(seen.word)};
    // Two that noted a new key at once may have given it both its buckets.
    const bool in_first_row = i < kWidth;
    const HeavyBucket other = read(place(mix(seen.key), in_first_row ? 1 : 0));
    if (other.key == seen.key) {
      if (!in_first_row) {
        continue;
      }
      offender.count += count_of(other.word);
    }
    size = insert(out, size, offender);
  }
  return size;
}

void HeavyHitters::halve(unsigned times) noexcept {
  for (size_t i = 0; header_ != nullptr && i < kRows * kWidth; ++i) {
    HeavyBucket seen, next;
    do {
      seen = read(&buckets_[i]);
      const uint64_t count = times < 32 ? count_of(seen.word) >> times : 0;
      next = count == 0 ? HeavyBucket{} : HeavyBucket{seen.key, count * kOne | (seen.word % kOne)};
    } while (seen.key != 0 && !cas(&buckets_[i], seen, next));
  }
}

bool HeavyHitters::fade(int64_t now_ns) noexcept {
  if (header_ == nullptr) {
    return false;
  }
  int64_t last = __atomic_load_n(&header_->faded_ns, __ATOMIC_RELAXED);
  const bool first_call = last == 0;
  const int64_t periods = first_call ? 0 : (now_ns - last) / kFadePeriodNs;
  if (!first_call && periods <= 0) {
    return false;
  }
  const int64_t next = first_call ? now_ns : last + periods * kFadePeriodNs;
  if (!__atomic_compare_exchange_n(&header_->faded_ns, &last, next, false, __ATOMIC_RELAXED,
                                   __ATOMIC_RELAXED) ||
      first_call) {
    return false;
  }
  halve(static_cast<unsigned>(std::min<int64_t>(periods, 32)));
  return true;
}

}  // namespace penstock::metrics
