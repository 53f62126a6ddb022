#include "shared/metrics/registry.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "shared/base/utf8.h"

namespace penstock::metrics {
namespace {

constexpr uint64_t kMagic = 0x73746e756f637370;  // "pscounts"
constexpr uint64_t kVersion = 1;
constexpr std::string_view kWhat = "counter registry";

// Generations before this one that must not have named a series that is given up.
constexpr uint64_t kGenerationsKept = 2;

bool valid_shape(size_t series, size_t stripes) noexcept {
  return series >= 1 && series <= kMaxSeries && stripes >= 1 && stripes <= kMaxStripes;
}

Status check_text(std::string_view text) {
  if (text.empty()) {
    return Error{"a series without a name cannot be counted"};
  }
  if (text.size() > kMaxSeriesText) {
    return Error{"the series " + std::string(text) + " has " + std::to_string(text.size()) +
                 " bytes: use shorter names, at most " + std::to_string(kMaxSeriesText) +
                 " bytes in all"};
  }
  if (text.find('\n') != text.npos || utf8_first_invalid(text) != text.npos) {
    return Error{"the series " + std::string(text) +
                 " is not one line of UTF-8: escape its label values"};
  }
  return Ok{};
}

}  // namespace

Registry::Registry(std::span<std::byte> memory, size_t series, size_t stripes) noexcept
    : header_(reinterpret_cast<RegistryHeader*>(memory.data())),
      entries_(reinterpret_cast<SeriesEntry*>(memory.data() + sizeof(RegistryHeader))),
      counters_(reinterpret_cast<uint64_t*>(entries_ + series)),
      series_(series),
      stripes_(stripes),
      stride_(stride_for(series)) {}

Result<Registry> Registry::create(std::span<std::byte> memory, size_t series, size_t stripes) {
  if (!valid_shape(series, stripes)) {
    return Error{"a counter registry has 1 to " + std::to_string(kMaxSeries) + " series and 1 to " +
                 std::to_string(kMaxStripes) + " stripes, not " + std::to_string(series) + " and " +
                 std::to_string(stripes)};
  }
  if (Status fit = check_memory(memory, bytes_for(series, stripes), kWhat); !fit) {
    return fit.error();
  }
  clear(memory);
  Registry registry(memory, series, stripes);
  registry.header_->series = series;
  registry.header_->stripes = stripes;
  registry.header_->generation = 1;
  write_stamp(memory, kMagic, kVersion);
  return registry;
}

Result<Registry> Registry::attach(std::span<std::byte> memory) {
  if (Status stamp = check_stamp(memory, bytes_for(1, 1), kMagic, kVersion, kWhat); !stamp) {
    return stamp.error();
  }
  const auto& header = *reinterpret_cast<const RegistryHeader*>(memory.data());
  if (!valid_shape(header.series, header.stripes) ||
      bytes_for(header.series, header.stripes) > memory.size()) {
    return Error{"the counter registry's header is damaged: it tells of " +
                 std::to_string(header.series) + " series and " + std::to_string(header.stripes) +
                 " stripes in " + std::to_string(memory.size()) + " bytes; create a new one"};
  }
  const Registry registry(memory, header.series, header.stripes);
  const auto too_long = [](const SeriesEntry& entry) { return entry.length > kMaxSeriesText; };
  if (registry.size() > registry.series_ ||
      std::any_of(registry.entries_, registry.entries_ + registry.size(), too_long)) {
    return Error{"the counter registry's entries are damaged: create a new one"};
  }
  return registry;
}

void Registry::begin_generation() noexcept {
  if (header_ != nullptr) {
    __atomic_fetch_add(&header_->generation, 1, __ATOMIC_RELAXED);
  }
}

Result<uint32_t> Registry::series(std::string_view text) {
  if (Status fine = check_text(text); !fine) {
    return fine.error();
  }
  uint32_t id = find(text);
  if (id == kNoSeries) {
    id = choose_place();
    if (id == kNoSeries) {
      return Error{"all " + std::to_string(series_) +
                   " places for counters are taken, none is left for " + std::string(text) +
                   ": use fewer limits and tiers, or a larger registry"};
    }
    fill(id, text);
  }
  __atomic_store_n(&entries_[id].generation, header_->generation, __ATOMIC_RELAXED);
  return id;
}

uint64_t Registry::sum(uint32_t id) const noexcept {
  uint64_t total = 0;
  for (size_t stripe = 0; id < series_ && stripe < stripes_; ++stripe) {
    total += __atomic_load_n(counter(id, stripe), __ATOMIC_RELAXED);
  }
  return total;
}

bool Registry::live(uint32_t id) const noexcept {
  return !text_of(id).empty() && __atomic_load_n(&entries_[id].generation, __ATOMIC_RELAXED) + 1 >=
                                     __atomic_load_n(&header_->generation, __ATOMIC_RELAXED);
}

std::string_view Registry::text_of(uint32_t id) const noexcept {
  if (id >= size()) {
    return {};
  }
  const size_t length = __atomic_load_n(&entries_[id].length, __ATOMIC_ACQUIRE);
  return {entries_[id].text, std::min(length, kMaxSeriesText)};
}

uint32_t Registry::find(std::string_view text) const noexcept {
  for (uint32_t id = 0; id < size(); ++id) {
    if (text_of(id) == text) {
      return id;
    }
  }
  return kNoSeries;
}

// A free entry if there is one, or the one that was named the longest ago.
uint32_t Registry::choose_place() const noexcept {
  if (series_ == 0) {
    return kNoSeries;
  }
  uint32_t oldest = 0;
  for (uint32_t id = 0; id < series_; ++id) {
    if (text_of(id).empty()) {
      return id;
    }
    if (entries_[id].generation < entries_[oldest].generation) {
      oldest = id;
    }
  }
  const bool unused = entries_[oldest].generation + kGenerationsKept < header_->generation;
  return unused ? oldest : kNoSeries;
}

// The entry is free until its last step, so that being killed on the way leaves no text half
// written and no text with another's count. An exchange, as nothing may be moved ahead of it.
void Registry::fill(uint32_t id, std::string_view text) noexcept {
  SeriesEntry& entry = entries_[id];
  __atomic_exchange_n(&entry.length, 0, __ATOMIC_ACQ_REL);
  for (size_t stripe = 0; stripe < stripes_; ++stripe) {
    __atomic_store_n(counter(id, stripe), 0, __ATOMIC_RELAXED);
  }
  std::memcpy(entry.text, text.data(), text.size());
  __atomic_store_n(&entry.length, static_cast<uint32_t>(text.size()), __ATOMIC_RELEASE);
  if (id >= size()) {
    __atomic_store_n(&header_->used, id + 1, __ATOMIC_RELEASE);
  }
}

}  // namespace penstock::metrics
