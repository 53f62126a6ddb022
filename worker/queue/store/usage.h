// Usage: what the ledger counts. A row is what one owner used of one queue and model in one hour.
//
// What limits charge is counted as they charge it (docs/USAGE.md): `requests`, the tokens and the
// GPU time of what failed by no fault of its caller are 0, as these were given back.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "worker/queue/store/job_record.h"

namespace penstock::queue {

enum UsageCount : uint8_t {
  kCompletedJobs,
  kFailedJobs,
  kCancelledJobs,
  kExpiredJobs,
  kJoinedRequests,  // answered by a job that was there
  kRequests,        // that limits count
  kPromptTokens,    // likewise, as are the others
  kCompletionTokens,
  kGpuMs,
};
constexpr std::string_view kUsageNames[] = {
    "completed", "failed",        "cancelled",         "expired", "joined",
    "requests",  "prompt_tokens", "completion_tokens", "gpu_ms"};
constexpr size_t kUsageCounts = std::size(kUsageNames);

struct UsageCounts : std::array<int64_t, kUsageCounts> {
  UsageCounts() : std::array<int64_t, kUsageCounts>{} {}
  UsageCounts& operator+=(const UsageCounts& other) {
    for (size_t i = 0; i < kUsageCounts; ++i) {
      (*this)[i] += other[i];
    }
    return *this;
  }
  UsageCounts& operator-=(const UsageCounts& other) {
    for (size_t i = 0; i < kUsageCounts; ++i) {
      (*this)[i] -= other[i];
    }
    return *this;
  }
};

struct UsageKey {
  int64_t hour = 0;    // since 1970, UTC
  uint64_t owner = 0;  // of the keyed hash, the lower half; 0: nobody
  std::string queue;
  std::string model;  // empty: any
  // NOLINTNEXTLINE(*-nullptr): it sees a 0 in this
  auto operator<=>(const UsageKey&) const = default;
};

struct UsageRow {
  UsageKey key;
  UsageCounts counts;
};

constexpr int64_t kHourMs = 3'600'000;
// What limits charge for a job that is said to have used so much, which is bounded; of the device's
// time whole ms.
constexpr int64_t kMostUsage = int64_t{1} << 40;
int64_t usage_of_tokens(uint64_t tokens);
int64_t usage_of_device(uint64_t device_ns);

// What the end of a promised job counts: what its edge is told by OVER. `paid`: it had been paid
// before (a dead letter that was queued again, a replay).
UsageCounts usage_of(const JobEnd& end, bool paid);

// Rows of [since, until) in the order of their keys.
struct UsageQuery {
  int64_t since = 0;  // hours
  int64_t until = INT64_MAX;
  std::vector<uint64_t> owners;  // empty: everybody's
  bool by_owner = false;         // `owners` counts, also where it is empty
  std::string model;             // empty: of each
  UsageKey after;                // behind that one
  uint32_t limit = 1000;
};
struct UsagePage {
  std::vector<UsageRow> rows;
  bool more = false;  // there may be others behind `last`
  UsageKey last;      // down to where was looked
};

// What is kept of the ledger at most; beyond either, the oldest hour is dropped.
struct UsageBounds {
  int64_t keep_hours = INT64_MAX;
  int64_t rows = INT64_MAX;
};

}  // namespace penstock::queue
