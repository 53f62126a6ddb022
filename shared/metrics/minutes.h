// Minutes: how a few counters stood at the beginning of each of the last minutes, so that one who
// asks for the first time hears what came of late, and not since the start.
//
//   minutes = header | 16 rows of a cache line: | minute | 7 counters |
//
// The first to count in a minute writes its row, before it counts; a minute in which nothing was
// counted has none, and needs none. A row that is read while it is written, or that was left half
// written, has no minute.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "shared/base/result.h"
#include "shared/metrics/stamp.h"

namespace penstock::metrics {

struct MinutesHeader {
  alignas(kCacheLine) Stamp stamp;
  uint64_t first;   // the minute of the first row ever; 0: none yet
  uint64_t latest;  // and of the last one
};
static_assert(sizeof(MinutesHeader) == kCacheLine);

// The view that one process has of them, copied freely; it owns nothing. One that was not made by
// create() or attach() knows nothing.
class Minutes {
 public:
  static constexpr int64_t kMinuteNs = 60'000'000'000;
  static constexpr size_t kRows = 16;
  static constexpr size_t kCounters = 7;
  static constexpr uint64_t kWindow = 10;  // minutes, fewer than there are rows
  using Counters = std::array<uint64_t, kCounters>;

  static constexpr size_t bytes() noexcept { return sizeof(MinutesHeader) + kRows * sizeof(Row); }

  Minutes() = default;
  // As of HeavyHitters.
  static Result<Minutes> create(std::span<std::byte> memory);
  static Result<Minutes> attach(std::span<std::byte> memory);

  // Whether a minute has begun whose row nobody has written: of several callers one hears it, and
  // is to write() it. One load, in all calls but that.
  // REQUIRES: now_ns is a reading of CLOCK_MONOTONIC.
  bool begins(int64_t now_ns) noexcept;
  void write(int64_t now_ns, const Counters& counters) noexcept;

  struct Recent {
    int64_t ns =
        0;  // so far back it reaches: ten minutes and the begun one, or since the first row
    Counters counted{};
  };
  // What was counted of late, if the counters stand at `now`. One that fell has begun anew.
  Recent recent(int64_t now_ns, const Counters& now) const noexcept;

 private:
  struct alignas(kCacheLine) Row {
    uint64_t minute;
    uint64_t counters[kCounters];
  };

  explicit Minutes(std::span<std::byte> memory) noexcept
      : header_(reinterpret_cast<MinutesHeader*>(memory.data())),
        rows_(reinterpret_cast<Row*>(memory.data() + sizeof(MinutesHeader))) {}

  MinutesHeader* header_ = nullptr;
  Row* rows_ = nullptr;
};

}  // namespace penstock::metrics
