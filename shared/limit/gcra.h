// GCRA, the Generic Cell Rate Algorithm: a token bucket in one 8-byte word.
//
// Instead of a token count and the time it was last topped up, it keeps one time, the TAT: when the
// bucket will be full again ("theoretical arrival time"). A request of cost c pushes the TAT
// c emission intervals further, and is admitted if the TAT then lies no more than a bucket's worth
// (burst x interval) ahead of now. Nothing has to be refilled: a TAT in the past is a full bucket,
// so whoever holds the word can see that it is idle without knowing the rate.
//
// Units. A state is a TAT in ticks of 1/16 ns since boot (CLOCK_MONOTONIC), so that 10,000,000 a
// second is still paced to 0.06 %; it lasts for 18 years of uptime. State 0 is a full bucket.
// Times at the interface are nanoseconds.
//
// Exactness. The emission interval is rounded up to a whole tick, once, when the policy is made.
// After that all arithmetic is exact: N at once, and never more than the rate allows. The rate kept
// is lower than the one asked for by less than 1 / (16 x interval in ns): 2e-10 at 3r/s,
// 6e-5 at a million a second.
//
// Clocks. `now` is what a process read a moment ago, so a worker may come with one that is earlier
// than another's. That only sees a TAT further ahead, and so admits less, never more.
//
// Leaky bucket. With a `delay`, what comes too early is admitted too, up to that long before its
// time, and told to wait until then (Decision::delay_ns): the bucket leaks at the rate, as
// limit_req's does.
//
// Debt. What a request used beyond what it had reserved is charged afterwards (overdraw) and may
// take the TAT up to `debt` beyond the bucket: the next requests wait for it.
//
// Reload. Under a changed rate a TAT is made to say as many units as before (terms.h). A key may
// then be ahead by more than a smaller bucket and its debt can be. What is more than kClockSkewNs
// beyond that cannot be a stale clock: it counts as a bucket just emptied, and the decision hands
// back that lower state to be stored, even though it refuses.
//
// Sources: ITU-T I.371 (2004) annex A, virtual scheduling form; RFC 2697 for the token bucket view.
#pragma once

#include <cstdint>

#include "shared/base/result.h"
#include "shared/limit/decision.h"

namespace penstock::limit {

constexpr uint64_t kTicksPerNs = 16;

// Two processes' readings of the clock may differ by this much, e.g. when one of them was stopped
// between reading it and using it, without a live TAT being taken for one of an older policy.
constexpr uint64_t kClockSkewNs = 10'000'000'000;

// One limit, ready for use: made by make_gcra, then constant, shared by everyone.
struct GcraPolicy {
  uint64_t interval = 0;    // ticks that one unit of cost takes to come back
  uint64_t tolerance = 0;   // ticks: burst * interval, at most kMaxTolerance
  uint64_t reciprocal = 0;  // floor(2^64 / interval): division by multiplication
  uint64_t burst = 0;       // units: the bucket's size
  uint64_t delay = 0;       // ticks: how much too early a request may come and be held back
  uint64_t most_delay = 0;  // the largest delay of all that share the state: at least `delay`
  uint64_t debt = 0;        // ticks: how far beyond the bucket overdraw() may go

  // How far ahead a TAT can truly be, and how far with a stale clock: see Debt and Reload.
  uint64_t farthest() const noexcept { return tolerance + debt + most_delay; }
  uint64_t ceiling() const noexcept { return farthest() + kClockSkewNs * kTicksPerNs; }
};

constexpr uint64_t kMaxTolerance = uint64_t{1} << 61;  // ticks: more than four years
constexpr uint64_t kMaxBurst = 1'000'000'000;

// `amount` units per `period_ns`, with room for `burst` at once; burst 0 means `amount`. Rates from
// 1 a month to 10,000,000 a second, bursts up to kMaxBurst. An Error says which number is wrong and
// what would be right. Configuration time only: the error is a string.
Result<GcraPolicy> make_gcra(uint64_t amount, uint64_t period_ns, uint64_t burst);

// Lets requests come up to `delay_ns` early and be held back. At most a day, and never beyond what
// can be counted.
void allow_delay(GcraPolicy& policy, uint64_t delay_ns) noexcept;

// Lets a debt grow to `debt_ns` of the rate, or to one bucket if that is more. At most a day.
void allow_debt(GcraPolicy& policy, uint64_t debt_ns) noexcept;

inline uint64_t gcra_ticks(int64_t now_ns) noexcept {
  return static_cast<uint64_t>(now_ns) * kTicksPerNs;
}

inline int64_t gcra_ns_up(uint64_t ticks) noexcept {
  return static_cast<int64_t>((ticks + (kTicksPerNs - 1)) / kTicksPerNs);
}

// Whole units in `ticks`. The estimate by reciprocal is never above and at most one below.
inline uint64_t gcra_units(const GcraPolicy& policy, uint64_t ticks) noexcept {
  __extension__ using Wide = unsigned __int128;
  const auto units = static_cast<uint64_t>(Wide{ticks} * policy.reciprocal >> 64);
  return units + (ticks - units * policy.interval >= policy.interval ? 1 : 0);
}

// Whether `cost` units may pass at now_ns, and what then is left. Pure; O(1), no division. Any
// state is accepted, damaged ones too. Cost 0 asks what there is and is always admitted.
// REQUIRES: 0 <= now_ns < 2^59 (18 years).
[[gnu::always_inline]] inline Decision decide(const GcraPolicy& policy, uint64_t state,
                                              int64_t now_ns, uint64_t cost) noexcept {
  const uint64_t now = gcra_ticks(now_ns);
  uint64_t used = state > now ? state - now : 0;
  if (used > policy.ceiling()) [[unlikely]] {
    used = policy.tolerance;
    state = now + used;
  }
  const uint64_t room = used < policy.tolerance ? policy.tolerance - used : 0;
  Decision decision;
  decision.next_state = state;
  if (cost > policy.burst) [[unlikely]] {
    decision.remaining = gcra_units(policy, room);
    decision.retry_after_ns = kNever;
    decision.reset_ns = gcra_ns_up(used);
    return decision;
  }
  const uint64_t need = cost * policy.interval;
  if (need > room) {
    const uint64_t early = used + need - policy.tolerance;
    if (early <= policy.delay && cost != 0) {
      decision.admit = true;
      decision.next_state = now + used + need;
      decision.delay_ns = gcra_ns_up(early);
      decision.reset_ns = gcra_ns_up(used + need);
      return decision;
    }
    decision.remaining = gcra_units(policy, room);
    decision.retry_after_ns = gcra_ns_up(early - policy.delay);
    decision.reset_ns = gcra_ns_up(used);
    return decision;
  }
  decision.admit = true;
  if (cost != 0) {
    decision.next_state = now + used + need;
  }
  decision.remaining = gcra_units(policy, room - need);
  decision.reset_ns = gcra_ns_up(used + need);
  return decision;
}

// The state after giving back `cost` units of an admission that left the state at `admitted_state`
// (its Decision::next_state). If nobody charged since, that undoes it exactly. If somebody did,
// only what has not flowed back by itself until now_ns is given back: returning that too would let
// a later request keep time that the bucket spent full, and so admit too much. Pure. REQUIRES: cost
// <= policy.burst, and is at most what was admitted.
inline uint64_t refund(const GcraPolicy& policy, uint64_t state, uint64_t admitted_state,
                       uint64_t cost, int64_t now_ns) noexcept {
  uint64_t back = cost < policy.burst ? cost * policy.interval : policy.tolerance;
  if (state != admitted_state) {
    const uint64_t now = gcra_ticks(now_ns);
    const uint64_t unspent = admitted_state > now ? admitted_state - now : 0;
    back = unspent < back ? unspent : back;
  }
  return state > back ? state - back : 0;
}

// The state after charging `cost` units more, whether there is room or not: what was used beyond a
// reservation. The debt is at most policy.debt. Pure.
inline uint64_t overdraw(const GcraPolicy& policy, uint64_t state, uint64_t cost,
                         int64_t now_ns) noexcept {
  __extension__ using Wide = unsigned __int128;
  const uint64_t now = gcra_ticks(now_ns);
  const uint64_t most = now + policy.farthest();
  const uint64_t from = state > now ? state : now;
  if (from >= most) {
    return state;
  }
  const Wide need = Wide{cost} * policy.interval;
  return need < most - from ? from + static_cast<uint64_t>(need) : most;
}

}  // namespace penstock::limit
