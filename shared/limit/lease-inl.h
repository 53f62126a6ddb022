// How shared buckets are decided and charged in the table; see lease.h.
#pragma once

#include <algorithm>

#include "shared/limit/charge_record.h"
#include "shared/limit/lease.h"
#include "shared/limit/terms.h"

namespace penstock::limit {

namespace charge_detail {
template <class Table>
inline void look_up(const Table& table, Charge& charge, const Instant& now) noexcept;
template <class Table>
inline Outcome commit(Table& table, Charge& charge, const Instant& now) noexcept;
}  // namespace charge_detail

namespace lease_detail {

inline int64_t ms_of(const Instant& now) noexcept { return now.steady_ns / 1'000'000; }

inline Hash128 place_of(const Policy& policy, const Hash128& key) noexcept {
  const Hash128& mine = policy.lessor->incarnation;
  return {key.lo ^ mine.lo, key.hi ^ mine.hi};
}

template <class Table>
bool find_told(const Table& table, const Policy& policy, const Hash128& key, Ref& ref) noexcept {
  if (!table.find(key, policy.mark, ref)) {
    ref.state = 0;
    return false;
  }
  carry(table, policy, ref);
  return true;
}

template <class Table>
bool find_held(const Table& table, const Policy& policy, const Hash128& key, Ref& ref) noexcept {
  if (!table.find(place_of(policy, key), Kind::lease, ref)) {
    ref.state = 0;
    return false;
  }
  return true;
}

inline Held live_at(uint64_t word, const Instant& now) noexcept {
  const Held held = Held::of(word);
  return held.end_ms > ms_of(now) ? held : Held();
}

inline bool in_hand(const Charge& charge) noexcept {
  return charge.found && charge.ref.slot == nullptr;
}

// What is not charged in the table: it is in hand, or nobody counts it.
inline Decision admit_free(Charge& charge, uint64_t admitted_state, Decision decision) noexcept {
  charge.found = true;
  charge.ref = Ref();
  charge.ref.state = admitted_state;
  decision.admit = true;
  decision.retry_after_ns = 0;
  decision.next_state = admitted_state;
  return decision;
}

// Of a concurrency: it was taken here alone. States of leases begin with their span's three bits,
// Redis's numbers never do.
inline bool is_own_lease(const Policy& policy, uint64_t admitted_state) noexcept {
  return policy.alone == Algorithm::concurrency && admitted_state >> 63 != 0;
}

// Without Redis: as a limit of this host's own, of its share.
template <class Table>
Decision decide_alone(const Table& table, Charge& charge, const Instant& now) noexcept {
  constexpr int64_t kSecondNs = 1'000'000'000;
  const Policy share = share_of(*charge.policy, charge.cost);
  Charge own(&share, charge.hash, charge.cost);
  charge_detail::look_up(table, own, now);
  charge.found = false;
  charge.ref.state = 0;
  if (charge.policy->lessor->without == Without::kAllow) {
    return admit_free(charge, 0, own.decision);
  }
  if (charge.policy->lessor->without == Without::kDeny) {
    own.decision.admit = false;
    own.decision.retry_after_ns = kSecondNs;
  }
  own.decision.next_state = 0;
  return own.decision;
}

template <class Table>
Outcome charge_alone(Table& table, Charge& charge, const Instant& now) noexcept {
  const Policy share = share_of(*charge.policy, charge.cost);
  Charge own(&share, charge.hash, charge.cost);
  charge_detail::look_up(table, own, now);
  const Outcome outcome =
      own.decision.admit ? charge_detail::commit(table, own, now) : Outcome::refused;
  charge.decision = own.decision;
  charge.charged = own.charged;
  if (charge.policy->algorithm == Algorithm::asked &&
      !is_own_lease(*charge.policy, charge.decision.next_state)) {
    charge.decision.next_state = 0;  // what Redis has said of it: nothing
  }
  return outcome;
}

}  // namespace lease_detail

// What is spent of `held` is in charge.ref; an admission's state is what was told. Not inlined: the
// other algorithms need no such frame.
template <class Table>
[[gnu::noinline]] Decision decide_leased(const Table& table, Charge& charge,
                                         const Instant& now) noexcept {
  using namespace lease_detail;
  const Policy& policy = *charge.policy;
  Ref told;
  find_told(table, policy, charge.hash, told);
  if (in_hand(charge)) {
    Decision decision = decide(policy.gcra, told.state, now.steady_ns, 0);
    const uint64_t turn = gcra_ticks(now.steady_ns) + policy.gcra.tolerance;
    const uint64_t most = policy.gcra.delay + policy.gcra.interval;  // whatever Redis says
    decision.delay_ns =
        charge.ref.state > turn ? gcra_ns_up(std::min(charge.ref.state - turn, most)) : 0;
    return admit_free(charge, charge.ref.state, decision);
  }
  charge.found = find_held(table, policy, charge.hash, charge.ref);
  const Held held = live_at(charge.ref.state, now);
  // As if what is held were given back.
  const uint64_t with_held = told.state - std::min(told.state, held.units * policy.gcra.interval);
  if (charge.cost != 0 && charge.cost <= held.units) {
    Decision decision = decide(policy.gcra, with_held, now.steady_ns, 0);
    decision.admit = true;
    decision.next_state = told.state;
    decision.remaining -= std::min(decision.remaining, charge.cost);
    return decision;
  }
  Decision decision = decide(policy.gcra, with_held, now.steady_ns, charge.cost);
  if (policy.lessor->is_away(charge.hash) && charge.cost != 0 && !decision.never()) {
    return decide_alone(table, charge, now);
  }
  decision.next_state = charge.ref.state;
  if (decision.admit && charge.cost != 0) {
    decision.admit = false;
    decision.delay_ns = 0;
    decision.retry_after_ns = kAsk;
  }
  return decision;
}

// What has none found in `held` is of the host's share.
template <class Table>
[[gnu::noinline]] Outcome charge_leased(Table& table, Charge& charge, const Instant& now) noexcept {
  for (unsigned attempt = 0; !lease_detail::in_hand(charge); ++attempt) {
    if (!charge.found) {
      return lease_detail::charge_alone(table, charge, now);
    }
    if (table.commit(charge.ref, charge.ref.state - charge.cost)) {
      break;
    }
    Table::back_off(attempt, charge.ref.expect_state);
    charge.found = false;
    charge.decision = decide_leased(table, charge, now);
    if (!charge.decision.admit) {
      return charge.decision.asks() ? Outcome::unknown : Outcome::refused;
    }
  }
  charge.charged = true;
  return Outcome::admitted;
}

// Puts change(told, now) in the place of what was told; both in ticks.
template <class Table, class Change>
void note_change(Table& table, const Policy& policy, const Hash128& key, const Instant& now,
                 const Change& change) noexcept {
  Ref ref;
  for (unsigned attempt = 0;; ++attempt) {
    const bool found = lease_detail::find_told(table, policy, key, ref);
    const uint64_t next = change(ref.state, gcra_ticks(now.steady_ns));
    if (next == ref.state) {
      return;
    }
    if (!found) {
      const auto claim = table.claim(key, policy.mark, now, ref);
      if (claim == Table::ClaimResult::full) {
        return;
      }
      if (claim == Table::ClaimResult::exists) {
        continue;
      }
    }
    if (table.commit(ref, next)) {
      return;
    }
    Table::back_off(attempt, ref.expect_state);
  }
}

// An admission that used more or less than it was charged, in ticks. Of what is given back only so
// much counts as has not flowed back by itself (gcra.h, refund).
template <class Table>
void correct_leased(Table& table, const Policy& policy, const Hash128& key, int64_t ticks,
                    uint64_t admitted_state, const Instant& now) noexcept {
  if (ticks < 0) {
    const uint64_t from = gcra_ticks(now.steady_ns);
    const auto unspent = static_cast<int64_t>(admitted_state > from ? admitted_state - from : 0);
    ticks = std::max(ticks, -unspent);
  }
  if (ticks == 0) {
    return;
  }
  policy.lessor->correct(policy, key, ticks, admitted_state);
  note_change(table, policy, key, now, [&](uint64_t told, uint64_t from) noexcept {
    if (ticks > 0) {
      return std::min(std::max(told, from) + static_cast<uint64_t>(ticks),
                      std::max(told, from + policy.gcra.farthest()));
    }
    return told - std::min(told, static_cast<uint64_t>(-ticks));
  });
}

template <class Table>
void note_told(Table& table, const Policy& policy, const Hash128& key, uint64_t ahead,
               const Instant& now) noexcept {
  note_change(table, policy, key, now,
              [ahead](uint64_t, uint64_t from) noexcept { return ahead == 0 ? 0 : from + ahead; });
}

template <class Table>
uint64_t told_of(const Table& table, const Policy& policy, const Hash128& key) noexcept {
  Ref ref;
  lease_detail::find_told(table, policy, key, ref);
  return ref.state;
}

template <class Table>
Held held_of(const Table& table, const Policy& policy, const Hash128& key,
             const Instant& now) noexcept {
  Ref ref;
  lease_detail::find_held(table, policy, key, ref);
  return lease_detail::live_at(ref.state, now);
}

template <class Table>
bool begin_renewal(Table& table, const Policy& policy, const Hash128& key, bool give_back,
                   int64_t until_ms, const Instant& now, Renewal& renewal) noexcept {
  Ref ref;
  for (unsigned attempt = 0;; ++attempt) {
    if (!lease_detail::find_held(table, policy, key, ref)) {
      const auto claim = table.claim(lease_detail::place_of(policy, key), Kind::lease, now, ref);
      if (claim == Table::ClaimResult::full) {
        return false;
      }
    }
    Held held = lease_detail::live_at(ref.state, now);
    if (held.renewed) {
      return false;
    }
    renewal.back = give_back ? held.units : 0;
    renewal.units = held.units = held.units - renewal.back;
    renewal.end_ms = held.end_ms = held.end_ms == 0 ? until_ms : held.end_ms;
    held.renewed = true;
    if (table.commit(ref, held.word())) {
      return true;
    }
    Table::back_off(attempt, ref.expect_state);
  }
}

template <class Table>
void end_renewal(Table& table, const Policy& policy, const Hash128& key, const Renewal& renewal,
                 bool valid, uint64_t granted, int64_t end_ms, const Instant& now) noexcept {
  Ref ref;
  for (unsigned attempt = 0; lease_detail::find_held(table, policy, key, ref); ++attempt) {
    Held held = lease_detail::live_at(ref.state, now);
    if (!held.renewed || held.end_ms != renewal.end_ms) {
      return;
    }
    held.renewed = false;
    held.units = std::min((valid ? held.units : 0) + granted, kMostHeld);
    held.end_ms = held.units == 0 ? 0 : end_ms;
    if (table.commit(ref, held.word())) {
      return;
    }
    Table::back_off(attempt, ref.expect_state);
  }
}

}  // namespace penstock::limit
