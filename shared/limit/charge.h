// Several limits on one request, charged together or not at all.
//
//   GcraPolicy minute = *make_gcra(10, 60'000'000'000, 5);     // configuration: 10r/m burst=5
//   Secret secret = derive_secret(table.secret(), "free-rate");
//
//   Charge charges[] = {{&minute, siphash13_128(secret, key), 1}, ...};
//   if (charge_all(table, charges, now_ns) == Outcome::admitted) ... charges[0].decision.remaining
//
// All limits are looked up (their cache lines fetched at once), all decided, and only if every one
// admits are they committed, one compare-and-swap each. Who loses a race looks at that limit again;
// if it now refuses, what was committed is given back. So a refused request leaves every limit as
// it was. While it is being given back, up to a microsecond later, another request may see it as
// used and be refused where it need not have been; the other way round never happens.
//
// A give-back that met another request's charge on the same key counts that charge as having come
// up to the difference of their two clock readings earlier than it said (gcra.h, refund).
//
// Nothing here allocates, blocks, or makes a system call. A request repeats a step only because
// another one succeeded.
#pragma once

#include <cstdint>
#include <span>

#include "shared/limit/gcra.h"
#include "shared/limit/siphash.h"
#include "shared/limit/table.h"

namespace penstock::limit {

struct Charge {
  const GcraPolicy* policy = nullptr;
  Hash128 hash;  // of the key under the limit's own secret (siphash.h)
  uint64_t cost = 1;

  // The answer. After admitted, it is what this charge left. After anything else, nothing was
  // charged: the limits with !admit are those that were exceeded, and for the others `remaining`
  // and `reset_ns` tell what there is without this request.
  Decision decision;

  // Private to charge_all: where the state is. found says whether the key has a slot.
  Ref ref;
  bool found = false;
};

enum class Outcome {
  admitted,
  refused,           // at least one limit is exceeded; retry after the largest retry_after_ns
  never_admissible,  // some cost is more than its limit's burst: no wait will help
  table_full,        // no slot for a new key; nothing was charged
};

// Charges all or none. The same key may occur twice. O(charges).
// REQUIRES: now_ns is a fresh reading of CLOCK_MONOTONIC, each policy outlives the call.
template <class Table>
Outcome charge_all(Table& table, std::span<Charge> charges, int64_t now_ns) noexcept;

// What charge_all would say, without charging anything or taking a slot for a new key.
template <class Table>
Outcome peek_all(const Table& table, std::span<Charge> charges, int64_t now_ns) noexcept;

// Gives back charges that charge_all admitted, as they were left by it: a later stage refused.
// `now_ns` is a fresh reading.
template <class Table>
void refund_all(Table& table, std::span<const Charge> charges, int64_t now_ns) noexcept;

// Gives back `cost` units of one admission, perhaps much later and in another process: what was
// reserved and not used. `admitted_state` is the decision's next_state of then.
// REQUIRES: cost is at most what was charged.
template <class Table>
void refund_one(Table& table, const GcraPolicy& policy, const Hash128& hash, uint64_t cost,
                uint64_t admitted_state, int64_t now_ns) noexcept;

// The largest wait over all limits that were exceeded: 0 if none was, kNever if some never admits.
int64_t retry_after_ns(std::span<const Charge> charges) noexcept;

}  // namespace penstock::limit

#include "shared/limit/charge-inl.h"

namespace penstock::limit {

extern template Outcome charge_all(Table&, std::span<Charge>, int64_t) noexcept;
extern template Outcome peek_all(const Table&, std::span<Charge>, int64_t) noexcept;
extern template void refund_all(Table&, std::span<const Charge>, int64_t) noexcept;
extern template void refund_one(Table&, const GcraPolicy&, const Hash128&, uint64_t, uint64_t,
                                int64_t) noexcept;

}  // namespace penstock::limit
