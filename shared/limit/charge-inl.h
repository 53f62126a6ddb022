// How charge_all does it; see charge.h for what it does.
#pragma once

#include "shared/limit/charge.h"

namespace penstock::limit {

namespace charge_detail {

template <class Table>
void look_up(const Table& table, Charge& charge, int64_t now_ns) noexcept {
  charge.found = table.find(charge.hash, Kind::gcra, charge.ref);
  if (!charge.found) {
    charge.ref.state = 0;
  }
  charge.decision = decide(*charge.policy, charge.ref.state, now_ns, charge.cost);
}

template <class Table>
Outcome judge(const Table& table, std::span<Charge> charges, int64_t now_ns) noexcept {
  for (const Charge& charge : charges) {
    table.prefetch(charge.hash);
  }
  Outcome outcome = Outcome::admitted;
  for (Charge& charge : charges) {
    look_up(table, charge, now_ns);
    if (charge.decision.never()) {
      outcome = Outcome::never_admissible;
    } else if (!charge.decision.admit && outcome == Outcome::admitted) {
      outcome = Outcome::refused;
    }
  }
  return outcome;
}

// The request is not admitted: limits that would have admitted it tell what they have without it.
inline void leave_uncharged(std::span<Charge> charges, int64_t now_ns) noexcept {
  for (Charge& charge : charges) {
    if (charge.decision.admit) {
      charge.decision = decide(*charge.policy, charge.ref.state, now_ns, 0);
    }
  }
}

// A refusal by a state that only an older, wider policy can have left: see Reload in gcra.h.
template <class Table>
void store_clamped(Table& table, std::span<Charge> charges) noexcept {
  for (Charge& charge : charges) {
    if (charge.found && !charge.decision.admit && charge.decision.next_state != charge.ref.state) {
      table.commit(charge.ref, charge.decision.next_state);
    }
  }
}

// Makes a slot for a key that has none. `admitted` means: go on to commit.
template <class Table>
Outcome take_slot(Table& table, Charge& charge, int64_t now_ns) noexcept {
  switch (table.claim(charge.hash, Kind::gcra, now_ns, charge.ref)) {
    case Table::Claim::full:
      charge.ref.state = 0;
      return Outcome::table_full;
    case Table::Claim::exists:
      charge.found = true;
      break;
    case Table::Claim::mine:
      break;
  }
  charge.decision = decide(*charge.policy, charge.ref.state, now_ns, charge.cost);
  if (charge.decision.admit) {
    return Outcome::admitted;
  }
  if (!charge.found) {
    table.release(charge.ref);
  }
  return Outcome::refused;
}

// REQUIRES: charge.decision.admit.
template <class Table>
Outcome commit(Table& table, Charge& charge, int64_t now_ns) noexcept {
  if (charge.cost == 0) {
    return Outcome::admitted;
  }
  for (unsigned attempt = 0;; ++attempt) {
    if (!charge.found) {
      const Outcome outcome = take_slot(table, charge, now_ns);
      if (outcome != Outcome::admitted) {
        return outcome;
      }
    }
    if (table.commit(charge.ref, charge.decision.next_state)) [[likely]] {
      return Outcome::admitted;
    }
    Table::back_off(attempt, charge.ref.expect_state);
    look_up(table, charge, now_ns);
    if (!charge.decision.admit) {
      return Outcome::refused;
    }
  }
}

}  // namespace charge_detail

template <class Table>
Outcome charge_all(Table& table, std::span<Charge> charges, int64_t now_ns) noexcept {
  Outcome outcome = charge_detail::judge(table, charges, now_ns);
  if (outcome != Outcome::admitted) {
    charge_detail::store_clamped(table, charges);
    charge_detail::leave_uncharged(charges, now_ns);
    return outcome;
  }
  for (size_t i = 0; i < charges.size(); ++i) {
    outcome = charge_detail::commit(table, charges[i], now_ns);
    if (outcome != Outcome::admitted) [[unlikely]] {
      refund_all(table, std::span<const Charge>(charges.first(i)), now_ns);
      charge_detail::leave_uncharged(charges, now_ns);
      return outcome;
    }
  }
  return Outcome::admitted;
}

template <class Table>
Outcome peek_all(const Table& table, std::span<Charge> charges, int64_t now_ns) noexcept {
  const Outcome outcome = charge_detail::judge(table, charges, now_ns);
  if (outcome != Outcome::admitted) {
    charge_detail::leave_uncharged(charges, now_ns);
  }
  return outcome;
}

template <class Table>
void refund_one(Table& table, const GcraPolicy& policy, const Hash128& hash, uint64_t cost,
                uint64_t admitted_state, int64_t now_ns) noexcept {
  if (cost == 0) {
    return;
  }
  Ref ref;
  // A key that has no slot any more was idle since: all of it has flowed back by itself.
  while (table.find(hash, Kind::gcra, ref)) {
    const uint64_t state = refund(policy, ref.state, admitted_state, cost, now_ns);
    if (state == ref.state || table.commit(ref, state)) {
      return;
    }
  }
}

template <class Table>
void refund_all(Table& table, std::span<const Charge> charges, int64_t now_ns) noexcept {
  for (const Charge& charge : charges) {
    refund_one(table, *charge.policy, charge.hash, charge.cost, charge.decision.next_state, now_ns);
  }
}

}  // namespace penstock::limit
