// Policy: one limit of any algorithm, and the four things that are done with its state.
//
//   algorithm        state                                      in      cost of a decision
//   gcra             one word                                   gcra.h    O(1)
//   fixed_window     one word                                   window.h  O(1)
//   sliding_window   one word                                   window.h  O(1)
//   concurrency      one word                                   window.h  O(1)
//   sliding_log      one word for each unit of the limit        charge.h  O(limit)
//   leased, asked    two words                                  lease.h   O(1)
//
// The sliding log keeps one lease of a window's length for every unit that was admitted: at most
// `limit` are live at any moment, so in no window of that length, wherever it begins, are there
// more. Each is a TAT of its own in the table, `entry()` places beside the key's. After a reload
// with a lower limit the places beyond it are looked at, too (`places`), but none is taken.
#pragma once

#include <cstdint>

#include "shared/limit/gcra.h"
#include "shared/limit/siphash.h"
#include "shared/limit/table.h"
#include "shared/limit/window.h"

namespace penstock::limit {

enum class Algorithm : uint8_t {
  gcra,  // token bucket, leaky bucket
  fixed_window,
  sliding_window,
  concurrency,
  // Of no single word:
  sliding_log,
  // That hosts share:
  leased,  // a token bucket
  asked,   // a window, or a log
};

class Lessor;

constexpr uint64_t kMaxLog = 1000;  // units in a sliding log

struct Policy {  // NOLINT(*Padding): by what they are about
  Algorithm algorithm = Algorithm::gcra;
  uint64_t limit = 0;        // units that may come at once: the burst, or the window's limit
  GcraPolicy gcra;           // gcra, leased
  WindowPolicy window;       // fixed_window, sliding_window, concurrency
  int64_t length_ns = 0;     // sliding_log
  uint64_t places = 0;       // sliding_log: so many are looked at, if they are more than `limit`
  Mark mark;                 // what its slots are
  Hash128 name;              // of the limit, in its zone: its terms are found by it (terms.h)
  Lessor* lessor = nullptr;  // leased, asked
  Algorithm alone = Algorithm::gcra;  // by which these are decided without Redis
};

// Whether it tells when its next unit comes.
inline bool is_bucket(const Policy& policy) noexcept {
  return policy.algorithm == Algorithm::gcra || policy.algorithm == Algorithm::leased;
}

Policy make_policy(const GcraPolicy& gcra) noexcept;
Policy make_policy(const WindowPolicy& window) noexcept;
// `limit` units in any `length_ns`. An Error names the bound, and what else to use.
Result<Policy> make_sliding_log(uint64_t limit, int64_t length_ns);

// Like the functions of gcra.h and window.h. REQUIRES: not a sliding log, whose state takes more
// than one word.
inline Decision decide(const Policy& policy, uint64_t state, const Instant& now,
                       uint64_t cost) noexcept {
  return policy.algorithm == Algorithm::gcra ? decide(policy.gcra, state, now.steady_ns, cost)
                                             : decide(policy.window, state, now, cost);
}

inline uint64_t refund(const Policy& policy, uint64_t state, uint64_t admitted_state, uint64_t cost,
                       const Instant& now) noexcept {
  return policy.algorithm == Algorithm::gcra
             ? refund(policy.gcra, state, admitted_state, cost, now.steady_ns)
             : refund(policy.window, state, admitted_state, cost);
}

inline uint64_t overdraw(const Policy& policy, uint64_t state, uint64_t cost,
                         const Instant& now) noexcept {
  return policy.algorithm == Algorithm::gcra ? overdraw(policy.gcra, state, cost, now.steady_ns)
                                             : overdraw(policy.window, state, cost, now);
}

// Where a sliding log keeps its unit number `i`: unrelated to the key's own place and each other's.
inline Hash128 entry(const Hash128& key, uint64_t i) noexcept {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;
  const auto mix = [](uint64_t x) noexcept {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  };
  return {mix(key.lo + (i + 1) * kOdd), mix(key.hi + (i + 1) * kOdd)};
}

}  // namespace penstock::limit
