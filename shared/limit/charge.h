// Several limits on one request, charged together or not at all.
//
//   Policy minute = make_policy(*make_gcra(10, 60'000'000'000, 5));     // 10r/m burst=5
//   Secret secret = derive_secret(table.secret(), "free-rate");
//
//   Charge charges[] = {{&minute, siphash13_128(secret, key), 1}, ...};
//   if (charge_all(table, charges, now) == Outcome::admitted) ... charges[0].decision.remaining
//
// The caller has their cache lines fetched as soon as it knows a hash (BasicTable::prefetch), so
// that they come together. All limits are looked up, all decided, and only if every one admits are
// they committed, one compare-and-swap each (a sliding log: one a unit). Who loses a
// race looks at that limit again; if it now refuses, what was committed is given back. So a refused
// request leaves every limit as it was. While it is being given back, up to a microsecond later,
// another request may see it as used and be refused where it need not have been; the other way
// round never happens.
//
// A give-back that met another request's charge on the same bucket counts that charge as having
// come up to the difference of their two clock readings earlier than it said (gcra.h, refund).
//
// Afterwards: a request that was charged more than it used is settled (settle_one); one that holds
// a lease keeps it alive (renew_one) and gives it back (refund_one). A process that dies between
// leaves nothing that stays: buckets flow back, windows end, leases lapse.
//
// Nothing here allocates, blocks, or makes a system call. A request repeats a step only because
// another one succeeded.
#pragma once

#include <cstdint>
#include <span>

#include "shared/limit/charge_record.h"
#include "shared/limit/policy.h"
#include "shared/limit/table.h"
#include "shared/limit/terms.h"

namespace penstock::limit {

// What an admission left, perhaps long ago, and in another process.
struct Admitted {
  static constexpr uint64_t kPresent = ~uint64_t{0};

  // NOLINTNEXTLINE(google-explicit-constructor)
  Admitted(uint64_t next_state, uint64_t of_generation = kPresent) noexcept
      : state(next_state), generation(of_generation) {}

  uint64_t state;       // the decision's next_state of then
  uint64_t generation;  // of terms, in which it was charged
};

enum class Outcome {
  admitted,
  refused,           // at least one limit is exceeded; retry after the largest retry_after_ns
  never_admissible,  // some cost is more than its limit ever admits: no wait will help
  table_full,        // no slot for a new key; nothing was charged
  unknown,           // the lessor must be asked by those that ask; nothing was charged (lease.h)
};

// Charges all or none. The same key may occur twice, but the wait told is then that of each charge
// by itself. O(charges), and O(limit) for a sliding log.
// REQUIRES: now is made of fresh readings (BasicTable::instant), each policy outlives the call.
template <class Table>
Outcome charge_all(Table& table, std::span<Charge> charges, const Instant& now) noexcept;

// What charge_all would say, without charging anything or taking a slot for a new key.
template <class Table>
Outcome peek_all(const Table& table, std::span<Charge> charges, const Instant& now) noexcept;

// Gives back charges that charge_all admitted, as they were left by it: a later stage refused.
// `now` is a fresh reading.
template <class Table>
void refund_all(Table& table, std::span<const Charge> charges, const Instant& now) noexcept;

// Gives back `cost` units of one admission, perhaps much later and in another process: what was
// reserved and not used, or a lease. REQUIRES: cost is at most what was charged.
template <class Table>
void refund_one(Table& table, const Policy& policy, const Hash128& hash, uint64_t cost,
                Admitted admitted, const Instant& now) noexcept;

// What a key would have if `cost` units of an admission were given back.
template <class Table>
Decision peek_refunded(const Table& table, const Policy& policy, const Hash128& hash, uint64_t cost,
                       Admitted admitted, const Instant& now) noexcept;

// Makes of an admission that was charged `reserved` units one of `used`: gives back the rest, or
// charges what is beyond, whether there is room or not (a sliding log: what room there is).
template <class Table>
void settle_one(Table& table, const Policy& policy, const Hash128& hash, uint64_t reserved,
                uint64_t used, Admitted admitted, const Instant& now) noexcept;

// Keeps a lease (Algorithm::concurrency) alive; returns its next admitted_state. Called each
// kLeaseNs / 2 by the holder.
template <class Table>
uint64_t renew_one(Table& table, const Policy& policy, const Hash128& hash, uint64_t cost,
                   uint64_t admitted_state, const Instant& now) noexcept;

// Forgets a key's count under one limit: the operator's word. False if there was none.
template <class Table>
bool reset_one(Table& table, const Policy& policy, const Hash128& hash) noexcept;

// The largest wait over all limits that were exceeded: 0 if none was, kNever if some never admits.
int64_t retry_after_ns(std::span<const Charge> charges) noexcept;

}  // namespace penstock::limit

#include "shared/limit/charge-inl.h"

namespace penstock::limit {

extern template Outcome charge_all(Table&, std::span<Charge>, const Instant&) noexcept;
extern template Outcome peek_all(const Table&, std::span<Charge>, const Instant&) noexcept;
extern template void refund_all(Table&, std::span<const Charge>, const Instant&) noexcept;
extern template void refund_one(Table&, const Policy&, const Hash128&, uint64_t, Admitted,
                                const Instant&) noexcept;
extern template Decision peek_refunded(const Table&, const Policy&, const Hash128&, uint64_t,
                                       Admitted, const Instant&) noexcept;
extern template void settle_one(Table&, const Policy&, const Hash128&, uint64_t, uint64_t, Admitted,
                                const Instant&) noexcept;
extern template uint64_t renew_one(Table&, const Policy&, const Hash128&, uint64_t, uint64_t,
                                   const Instant&) noexcept;
extern template bool reset_one(Table&, const Policy&, const Hash128&) noexcept;

}  // namespace penstock::limit
