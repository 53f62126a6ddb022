// Counting in windows, in one 8-byte word: fixed windows of the calendar, the sliding-window
// counter, and concurrency with leased slots.
//
//   fixed    | span, 3 bits | window's number | count                          |
//   paired   | span, 3 bits | window's number | count before | count in window |
//
// The number of bits depends on the span (kLayouts in window.cc), so that whoever holds the word
// can see that it is idle without knowing the limit. Numbers wrap round after 91 days or more; one
// that is ahead of the clock counts as the present window for as long as a stepped clock explains
// it (an hour, or one window), and as none of the present beyond that.
//
// Fixed window: `limit` units in each second, minute, hour, day (from midnight), week (from Monday)
// or month of the calendar, in UTC. While the clock stands before the window of the state, because
// it was stepped back, that window goes on: a step never gives a quota twice.
//
// Sliding window: of the window before, only the part that a window's length back from now covers
// is counted, as if its units had come evenly: before * (1 - elapsed) + in window + cost <= limit.
// It goes by the steady clock; a month is 30 days. Exact integer arithmetic, rounded against the
// caller.
//
// Concurrency: a unit held is a lease. It is counted in the window (kLeaseNs long) in which it was
// taken or last renewed, and lasts until the end of the next one. A holder renews each kLeaseNs / 2
// and gives it back when it is done; what a killed holder had lapses by itself.
//
// Sources: the sliding-window counter as described by Cloudflare ("How we built rate limiting
// capable of scaling to millions of domains", 2017); leases: Gray and Cheriton, SOSP 1989; days to
// civil dates: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
#pragma once

#include <cstdint>

#include "shared/base/result.h"
#include "shared/limit/decision.h"

namespace penstock::limit {

enum class Span : uint8_t { second, minute, hour, day, week, month, days30, lease };

constexpr int64_t kLeaseNs = 5'000'000'000;

enum class WindowKind : uint8_t { fixed, sliding, lease };

struct WindowPolicy {
  WindowKind kind = WindowKind::fixed;
  Span span = Span::minute;
  uint64_t limit = 0;  // units: in a window, or held at once
};

// Units up to what the span's count can hold (524287 a second, 4194303 a minute ... when sliding;
// 1048575 leases): an Error says how many, and what else to use. REQUIRES: span != lease.
Result<WindowPolicy> make_fixed_window(uint64_t limit, Span span);
Result<WindowPolicy> make_sliding_window(uint64_t limit, Span span);
Result<WindowPolicy> make_concurrency(uint64_t limit);

// Like decide() in gcra.h: pure, O(1), any state is accepted. For leases, retry_after_ns is when
// enough of them lapse if nobody renews them.
Decision decide(const WindowPolicy& policy, uint64_t state, const Instant& now,
                uint64_t cost) noexcept;

// The state after giving back `cost` units of an admission that left the state at `admitted_state`:
// taken out of the window in which they are counted, if that one still counts.
uint64_t refund(const WindowPolicy& policy, uint64_t state, uint64_t admitted_state,
                uint64_t cost) noexcept;

// The state after counting `cost` units more, whether there is room or not.
uint64_t overdraw(const WindowPolicy& policy, uint64_t state, uint64_t cost,
                  const Instant& now) noexcept;

// Leases: the state after moving `cost` units, taken or last renewed when the state became
// `held_state`, into the present window; they are counted again if they had lapsed. The result is
// the next held_state.
uint64_t renew(const WindowPolicy& policy, uint64_t state, uint64_t held_state, uint64_t cost,
               const Instant& now) noexcept;

// Units counted at `now`.
uint64_t used(const WindowPolicy& policy, uint64_t state, const Instant& now) noexcept;

// When the window of the calendar before that of `wall_ns`, this one and the next two begin.
void window_begins(Span span, int64_t wall_ns, int64_t (&begins_ns)[4]) noexcept;

// How long a window is; a month has 31 days here.
int64_t span_ns(Span span) noexcept;

// Units counted by a state of any policy: idle is one that counts nothing any more.
uint64_t fixed_window_used(uint64_t state, const Instant& now) noexcept;
uint64_t paired_window_used(uint64_t state, const Instant& now) noexcept;

}  // namespace penstock::limit
