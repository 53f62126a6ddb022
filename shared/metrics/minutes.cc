#include "shared/metrics/minutes.h"

#include <algorithm>

namespace penstock::metrics {
namespace {

constexpr uint64_t kMagic = 0x736574756e696d73;  // "sminutes"
constexpr uint64_t kVersion = 1;
constexpr std::string_view kWhat = "counters by minute";

// From 1 on: 0 is what nothing has.
uint64_t minute_of(int64_t ns) noexcept {
  return static_cast<uint64_t>(ns / Minutes::kMinuteNs) + 1;
}

uint64_t load(const uint64_t& word) noexcept { return __atomic_load_n(&word, __ATOMIC_ACQUIRE); }
void store(uint64_t& word, uint64_t value) noexcept {
  __atomic_store_n(&word, value, __ATOMIC_RELEASE);
}

}  // namespace

Result<Minutes> Minutes::create(std::span<std::byte> memory) {
  if (Status fit = check_memory(memory, bytes(), kWhat); !fit) {
    return fit.error();
  }
  clear(memory);
  write_stamp(memory, kMagic, kVersion);
  return Minutes(memory);
}

Result<Minutes> Minutes::attach(std::span<std::byte> memory) {
  if (Status stamp = check_stamp(memory, bytes(), kMagic, kVersion, kWhat); !stamp) {
    return stamp.error();
  }
  return Minutes(memory);
}

bool Minutes::begins(int64_t now_ns) noexcept {
  if (header_ == nullptr) {
    return false;
  }
  const uint64_t minute = minute_of(now_ns);
  uint64_t latest = __atomic_load_n(&header_->latest, __ATOMIC_RELAXED);
  return latest < minute && __atomic_compare_exchange_n(&header_->latest, &latest, minute, false,
                                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

void Minutes::write(int64_t now_ns, const Counters& counters) noexcept {
  const uint64_t minute = minute_of(now_ns);
  Row& row = rows_[minute % kRows];
  __atomic_exchange_n(&row.minute, uint64_t{0}, __ATOMIC_ACQ_REL);
  for (size_t i = 0; i < kCounters; ++i) {
    store(row.counters[i], counters[i]);
  }
  store(row.minute, minute);
  if (load(header_->first) == 0) {
    store(header_->first, minute);
  }
}

Minutes::Recent Minutes::recent(int64_t now_ns, const Counters& now) const noexcept {
  const uint64_t first = header_ == nullptr ? 0 : load(header_->first);
  if (first == 0) {
    return {};
  }
  const uint64_t minute = minute_of(now_ns);
  const uint64_t since = std::max(first, minute > kWindow ? minute - kWindow : 1);
  Recent recent{.ns = now_ns - static_cast<int64_t>(since - 1) * kMinuteNs};
  // As nothing was counted in a minute without a row, the next row tells how they stood then.
  for (uint64_t at = since; at <= minute; ++at) {
    const Row& row = rows_[at % kRows];
    Counters then;
    if (load(row.minute) != at) {
      continue;
    }
    for (size_t i = 0; i < kCounters; ++i) {
      then[i] = load(row.counters[i]);
    }
    if (load(row.minute) != at) {
      continue;
    }
    for (size_t i = 0; i < kCounters; ++i) {
      recent.counted[i] = now[i] >= then[i] ? now[i] - then[i] : now[i];
    }
    return recent;
  }
  return recent;
}

}  // namespace penstock::metrics
