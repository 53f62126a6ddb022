// The counters that Prometheus asks for, in memory that all Nginx workers share and that a reload
// finds again.
//
//   registry = header | entry | entry | ... | stripe | stripe | ...
//   entry    = the text of one series, as it is rendered: name{label="value",...}     256 bytes
//   stripe   = one 8-byte counter per entry, rounded up to whole cache lines
//
// Every worker adds into a stripe of its own, so that cores don't fight over cache lines; a
// series' value is the sum over the stripes. Where several processes may share a stripe, adding is
// one relaxed atomic add (add()); who has one to itself adds as to any number of its own (word()).
// A process may be killed at any instruction.
//
// A series is found by its text, so that a new configuration goes on counting where the old one
// was. What a configuration names, it asks for between one begin_generation() and the next:
//
//   named by this generation or the one before    live: it is rendered, its text stays as it is
//   not named by this one and the two before it   may be given up when another needs its place
//
// A worker of an old configuration that is still finishing its requests after three reloads may
// thus add to a counter that is another's by now. It only happens in a registry that is full; give
// it room for all series of two configurations.
//
// Only one process at a time, Nginx's master, calls begin_generation() and series(). Should it be
// killed halfway, an entry is either whole or free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "shared/base/result.h"
#include "shared/metrics/stamp.h"

namespace penstock::metrics {

constexpr size_t kMaxSeriesText = 239;
constexpr size_t kMaxSeries = size_t{1} << 16;
constexpr size_t kMaxStripes = size_t{1} << 10;

// What add() ignores: for what isn't counted, e.g. because the registry was full.
constexpr uint32_t kNoSeries = UINT32_MAX;

struct RegistryHeader {
  alignas(kCacheLine) Stamp stamp;
  uint64_t series;      // constant, as are the next and the stamp
  uint64_t stripes;     //
  uint64_t generation;  // number of the latest
  uint64_t used;        // entries that were ever used, the first of all; grows only
};
static_assert(sizeof(RegistryHeader) == kCacheLine);

struct SeriesEntry {
  uint64_t generation;  // the latest that named it
  uint32_t length;      // 0: free. Written last, so that a text that is there is whole.
  char text[kMaxSeriesText + 1];
};
static_assert(sizeof(SeriesEntry) == 256);

// The view that one process has of the registry, copied freely; it owns nothing. A view that was
// not made by create() or attach() has no series and counts nothing.
class Registry {
 public:
  Registry() = default;

  // Bytes for so many series and stripes. REQUIRES: at most kMaxSeries and kMaxStripes of them.
  static constexpr size_t bytes_for(size_t series, size_t stripes) noexcept {
    return sizeof(RegistryHeader) + series * sizeof(SeriesEntry) +
           stripes * stride_for(series) * sizeof(uint64_t);
  }

  // Makes an empty registry in `memory`, which is overwritten. An Error if it is not aligned to a
  // cache line or smaller than bytes_for(), or if there are no or too many series or stripes.
  // REQUIRES: nobody else uses the memory; it outlives every view.
  static Result<Registry> create(std::span<std::byte> memory, size_t series, size_t stripes);

  // The registry that is already there. An Error says why it isn't one that this version can use.
  static Result<Registry> attach(std::span<std::byte> memory);

  // A new configuration names its series after this. Call it when that configuration is certain
  // to be used: reloads that fail must not make the running workers' series look unused.
  void begin_generation() noexcept;

  // The id of the series with this text, which is made with the value 0 if there is none. The same
  // until the series is given up. O(capacity). An Error if the text is empty, too long, or not one
  // line of UTF-8 (Prometheus would refuse the whole page), or if there is no place left.
  Result<uint32_t> series(std::string_view text);

  // Adds to the counter in one stripe, taken modulo their number. An id that is none is ignored.
  void add(uint32_t id, unsigned stripe, uint64_t amount = 1) noexcept {
    if (id < series_) [[likely]] {
      __atomic_fetch_add(counter(id, stripe < stripes_ ? stripe : stripe % stripes_), amount,
                         __ATOMIC_RELAXED);
    }
  }

  // The counter of one stripe, for a process that is the only one to add to it: it needs no atomic
  // add then, only stores that are not torn. nullptr for an id or stripe that is none.
  uint64_t* word(uint32_t id, unsigned stripe) const noexcept {
    return id < series_ && stripe < stripes_ ? counter(id, stripe) : nullptr;
  }

  // The value of a series: at least what was added before the call. O(stripes).
  uint64_t sum(uint32_t id) const noexcept;

  // Ids are below this. Some of them may not be live.
  size_t size() const noexcept {
    return header_ == nullptr ? 0 : __atomic_load_n(&header_->used, __ATOMIC_ACQUIRE);
  }
  size_t capacity() const noexcept { return series_; }
  size_t stripes() const noexcept { return stripes_; }

  // Whether this generation or the one before named the series.
  bool live(uint32_t id) const noexcept;

  // Empty for what is no series. If it is live, the view is good at least until the second
  // begin_generation() from now.
  std::string_view text_of(uint32_t id) const noexcept;

 private:
  // Counters from one stripe's first to the next one's.
  static constexpr size_t stride_for(size_t series) noexcept {
    constexpr size_t kPerLine = kCacheLine / sizeof(uint64_t);
    return (series + kPerLine - 1) / kPerLine * kPerLine;
  }

  Registry(std::span<std::byte> memory, size_t series, size_t stripes) noexcept;

  uint64_t* counter(uint32_t id, size_t stripe) const noexcept {
    return counters_ + stripe * stride_ + id;
  }
  uint32_t find(std::string_view text) const noexcept;
  uint32_t choose_place() const noexcept;
  void fill(uint32_t id, std::string_view text) noexcept;

  RegistryHeader* header_ = nullptr;
  SeriesEntry* entries_ = nullptr;
  uint64_t* counters_ = nullptr;
  size_t series_ = 0;  // as in the header, which others could damage
  size_t stripes_ = 1;
  size_t stride_ = 0;
};

}  // namespace penstock::metrics
