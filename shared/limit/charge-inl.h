// How charge_all does it; see charge.h for what it does.
#pragma once

#include "shared/limit/charge.h"
#include "shared/limit/log-inl.h"

namespace penstock::limit {

namespace charge_detail {

inline bool is_log(const Charge& charge) noexcept {
  return charge.policy->algorithm == Algorithm::sliding_log;
}

// The key's slot, wherever it is, and its state by the present terms.
template <class Table>
[[gnu::noinline]] bool find_elsewhere(const Table& table, const Policy& policy, const Hash128& hash,
                                      Ref& ref) noexcept {
  if (!table.find_elsewhere(hash, policy.mark, ref)) {
    return false;
  }
  carry(table, policy, ref);
  return true;
}

template <class Table>
[[gnu::always_inline]] inline bool find(const Table& table, const Policy& policy,
                                        const Hash128& hash, Ref& ref) noexcept {
  return table.find_first(hash, policy.mark, ref) || find_elsewhere(table, policy, hash, ref);
}

template <class Table>
[[gnu::noinline]] void look_up_other(const Table& table, Charge& charge,
                                     const Instant& now) noexcept {
  if (is_log(charge)) {
    charge.decision = decide_log(table, *charge.policy, charge.hash, charge.cost, now);
    return;
  }
  charge.found = find(table, *charge.policy, charge.hash, charge.ref);
  charge.ref.state = charge.found ? charge.ref.state : 0;
  charge.decision = decide(charge.policy->window, charge.ref.state, now, charge.cost);
}

// Buckets are what there is most of: the way to their decision has no call in it.
template <class Table>
[[gnu::always_inline]] inline void look_up(const Table& table, Charge& charge,
                                           const Instant& now) noexcept {
  const Policy& policy = *charge.policy;
  if (policy.algorithm != Algorithm::gcra) [[unlikely]] {
    look_up_other(table, charge, now);
    return;
  }
  uint64_t state = 0;
  charge.found = find(table, policy, charge.hash, charge.ref);
  if (charge.found) [[likely]] {
    state = charge.ref.state;
  } else {
    charge.ref.state = 0;
  }
  charge.decision = decide(policy.gcra, state, now.steady_ns, charge.cost);
}

template <class Table>
Outcome judge(const Table& table, std::span<Charge> charges, const Instant& now) noexcept {
  Outcome outcome = Outcome::admitted;
  for (Charge& charge : charges) {
    charge.charged = false;
    look_up(table, charge, now);
    if (charge.decision.admit || charge.advisory) {
      continue;
    }
    if (charge.decision.never()) {
      outcome = Outcome::never_admissible;
    } else if (outcome == Outcome::admitted) {
      outcome = Outcome::refused;
    }
  }
  return outcome;
}

// The request is not admitted: limits that would have admitted it tell what they have without it.
template <class Table>
void leave_uncharged(const Table& table, std::span<Charge> charges, const Instant& now) noexcept {
  for (Charge& charge : charges) {
    charge.charged = false;
    if (!charge.decision.admit) {
      continue;
    }
    charge.decision = is_log(charge) ? decide_log(table, *charge.policy, charge.hash, 0, now)
                                     : decide(*charge.policy, charge.ref.state, now, 0);
  }
}

// A refusal by a state that only an older, wider policy can have left: see Reload in gcra.h.
template <class Table>
void store_clamped(Table& table, const Charge& charge) noexcept {
  if (charge.decision.admit) {
    return;
  }
  if (is_log(charge)) [[unlikely]] {
    clamp_log(table, *charge.policy, charge.hash, charge.decision.next_state);
  } else if (charge.found && charge.decision.next_state != charge.ref.state) {
    table.commit(charge.ref, charge.decision.next_state);
  }
}

// Makes a slot for a key that has none. `admitted` means: go on to commit.
template <class Table>
Outcome take_slot(Table& table, Charge& charge, const Instant& now) noexcept {
  switch (table.claim(charge.hash, charge.policy->mark, now, charge.ref)) {
    case Table::ClaimResult::full:
      charge.ref.state = 0;
      return Outcome::table_full;
    case Table::ClaimResult::exists:
      charge.found = true;
      carry(table, *charge.policy, charge.ref);
      break;
    case Table::ClaimResult::mine:
      break;
  }
  charge.decision = decide(*charge.policy, charge.ref.state, table.not_before(now), charge.cost);
  if (charge.decision.admit) {
    return Outcome::admitted;
  }
  if (!charge.found) {
    table.release(charge.ref);
  }
  return Outcome::refused;
}

// The key has no slot yet, or somebody else was faster at it.
template <class Table>
[[gnu::noinline]] Outcome commit_slowly(Table& table, Charge& charge, const Instant& now) noexcept {
  for (unsigned attempt = 0;; ++attempt) {
    if (!charge.found) {
      const Outcome outcome = take_slot(table, charge, now);
      if (outcome != Outcome::admitted) {
        return outcome;
      }
    }
    if (table.commit(charge.ref, charge.decision.next_state)) {
      charge.charged = true;
      return Outcome::admitted;
    }
    Table::back_off(attempt, charge.ref.expect_state);
    look_up(table, charge, now);
    if (!charge.decision.admit) {
      return Outcome::refused;
    }
  }
}

// REQUIRES: charge.decision.admit.
template <class Table>
[[gnu::always_inline]] inline Outcome commit(Table& table, Charge& charge,
                                             const Instant& now) noexcept {
  if (charge.cost == 0) {
    return Outcome::admitted;
  }
  if (is_log(charge)) [[unlikely]] {
    return charge_log(table, charge, now);
  }
  if (charge.found && table.commit(charge.ref, charge.decision.next_state)) [[likely]] {
    charge.charged = true;
    return Outcome::admitted;
  }
  if (charge.found) {
    Table::back_off(0, charge.ref.expect_state);
    look_up(table, charge, now);
    if (!charge.decision.admit) {
      return Outcome::refused;
    }
  }
  return commit_slowly(table, charge, now);
}

// Puts `change(state)` in place of a key's state, if the key has one. False if it hasn't, or the
// change changes nothing.
template <class Table, class Change>
bool change_state(Table& table, const Policy& policy, const Hash128& hash,
                  const Change& change) noexcept {
  Ref ref;
  while (find(table, policy, hash, ref)) {
    const uint64_t state = change(ref.state);
    if (state == ref.state) {
      return false;
    }
    if (table.commit(ref, state)) {
      return true;
    }
  }
  return false;
}

// The same, by `change(state, now)`, for a key that may have no slot any more; it then gets one, if
// there is any. Returns the state stored, or `otherwise` if the table is full.
template <class Table, class Change>
uint64_t force_state(Table& table, const Policy& policy, const Hash128& hash, const Instant& now,
                     uint64_t otherwise, const Change& change) noexcept {
  Ref ref;
  for (unsigned attempt = 0;; ++attempt) {
    Instant when = now;
    if (!find(table, policy, hash, ref)) {
      const auto claim = table.claim(hash, policy.mark, now, ref);
      if (claim == Table::ClaimResult::full) {
        return otherwise;
      }
      if (claim == Table::ClaimResult::exists) {
        carry(table, policy, ref);
      }
      when = table.not_before(now);
    }
    const uint64_t state = change(ref.state, when);
    if (table.commit(ref, state)) {
      return state;
    }
    Table::back_off(attempt, ref.expect_state);
  }
}

// A process of an earlier configuration: does it in a view of the present generation, and by its
// terms.
template <class Table, class Act>
[[gnu::noinline]] Outcome by_present_terms(const Table& table, std::span<Charge> charges,
                                           const Act& act) noexcept {
  constexpr size_t kMost = 128;
  Policy present[kMost];
  const Policy* own[kMost];
  const size_t count = charges.size() < kMost ? charges.size() : kMost;
  Table view = table.renewed();
  for (size_t i = 0; i < count; ++i) {
    own[i] = charges[i].policy;
    present[i] = with_terms(*own[i], view.terms(own[i]->name, view.generation()));
    charges[i].policy = &present[i];
  }
  const Outcome outcome = act(view);
  for (size_t i = 0; i < count; ++i) {
    charges[i].policy = own[i];
  }
  return outcome;
}

// The same of one limit; Act(view, policy).
template <class Table, class Act>
[[gnu::noinline]] auto by_present_terms(const Table& table, const Policy& policy,
                                        const Act& act) noexcept {
  Table view = table.renewed();
  return act(view, with_terms(policy, view.terms(policy.name, view.generation())));
}

// What an admission left, by the present terms.
template <class Table>
uint64_t admitted_state(const Table& table, const Policy& policy,
                        const Admitted& admitted) noexcept {
  return admitted.generation >= table.generation()
             ? admitted.state
             : carried(table, policy, admitted.generation, policy.mark.kind(), admitted.state);
}

}  // namespace charge_detail

template <class Table>
Outcome charge_all(Table& table, std::span<Charge> charges, const Instant& now) noexcept {
  if (table.is_stale()) [[unlikely]] {
    return charge_detail::by_present_terms(table, charges, [charges, &now](Table& view) noexcept {
      return charge_all(view, charges, now);
    });
  }
  Outcome outcome = charge_detail::judge(table, charges, now);
  if (outcome != Outcome::admitted) {
    for (const Charge& charge : charges) {
      charge_detail::store_clamped(table, charge);
    }
    charge_detail::leave_uncharged(table, charges, now);
    return outcome;
  }
  for (size_t i = 0; i < charges.size(); ++i) {
    if (!charges[i].decision.admit) {
      charge_detail::store_clamped(table, charges[i]);
      continue;  // advisory
    }
    outcome = charge_detail::commit(table, charges[i], now);
    if (outcome != Outcome::admitted && !charges[i].advisory) [[unlikely]] {
      refund_all(table, std::span<const Charge>(charges.first(i)), now);
      charge_detail::leave_uncharged(table, charges, now);
      return outcome;
    }
  }
  return Outcome::admitted;
}

template <class Table>
Outcome peek_all(const Table& table, std::span<Charge> charges, const Instant& now) noexcept {
  if (table.is_stale()) [[unlikely]] {
    return charge_detail::by_present_terms(table, charges, [charges, &now](Table& view) noexcept {
      return peek_all(view, charges, now);
    });
  }
  const Outcome outcome = charge_detail::judge(table, charges, now);
  if (outcome != Outcome::admitted) {
    charge_detail::leave_uncharged(table, charges, now);
  }
  return outcome;
}

template <class Table>
void refund_one(Table& table, const Policy& policy, const Hash128& hash, uint64_t cost,
                Admitted admitted, const Instant& now) noexcept {
  if (cost == 0) {
    return;
  }
  if (table.is_stale()) [[unlikely]] {
    return charge_detail::by_present_terms(table, policy,
                                           [&](Table& view, const Policy& present) noexcept {
                                             refund_one(view, present, hash, cost, admitted, now);
                                           });
  }
  const uint64_t then = charge_detail::admitted_state(table, policy, admitted);
  if (policy.algorithm == Algorithm::sliding_log) [[unlikely]] {
    refund_log(table, policy, hash, cost, then);
    return;
  }
  // A key that has no slot any more was idle since: all of it has flowed back by itself.
  charge_detail::change_state(table, policy, hash, [&](uint64_t state) noexcept {
    return refund(policy, state, then, cost, now);
  });
}

template <class Table>
Decision peek_refunded(const Table& table, const Policy& policy, const Hash128& hash, uint64_t cost,
                       Admitted admitted, const Instant& now) noexcept {
  if (table.is_stale()) [[unlikely]] {
    return charge_detail::by_present_terms(
        table, policy, [&](const Table& view, const Policy& present) noexcept {
          return peek_refunded(view, present, hash, cost, admitted, now);
        });
  }
  if (policy.algorithm == Algorithm::sliding_log) {
    Decision decision = decide_log(table, policy, hash, 0, now);
    decision.remaining = std::min(policy.limit, decision.remaining + cost);
    return decision;
  }
  Ref ref;
  if (!charge_detail::find(table, policy, hash, ref)) {
    return decide(policy, 0, now, 0);
  }
  const uint64_t then = charge_detail::admitted_state(table, policy, admitted);
  return decide(policy, refund(policy, ref.state, then, cost, now), now, 0);
}

template <class Table>
void refund_all(Table& table, std::span<const Charge> charges, const Instant& now) noexcept {
  for (const Charge& charge : charges) {
    if (charge.charged) {
      refund_one(table, *charge.policy, charge.hash, charge.cost, charge.decision.next_state, now);
    }
  }
}

template <class Table>
void settle_one(Table& table, const Policy& policy, const Hash128& hash, uint64_t reserved,
                uint64_t used, Admitted admitted, const Instant& now) noexcept {
  if (used <= reserved) {
    refund_one(table, policy, hash, reserved - used, admitted, now);
    return;
  }
  if (table.is_stale()) [[unlikely]] {
    return charge_detail::by_present_terms(
        table, policy, [&](Table& view, const Policy& present) noexcept {
          settle_one(view, present, hash, reserved, used, admitted, now);
        });
  }
  const uint64_t beyond = used - reserved;
  if (policy.algorithm == Algorithm::sliding_log) [[unlikely]] {
    overdraw_log(table, policy, hash, beyond, now);
    return;
  }
  charge_detail::force_state(table, policy, hash, now, 0,
                             [&](uint64_t state, const Instant& when) noexcept {
                               return overdraw(policy, state, beyond, when);
                             });
}

template <class Table>
uint64_t renew_one(Table& table, const Policy& policy, const Hash128& hash, uint64_t cost,
                   uint64_t admitted_state, const Instant& now) noexcept {
  if (table.is_stale()) [[unlikely]] {
    return charge_detail::by_present_terms(
        table, policy, [&](Table& view, const Policy& present) noexcept {
          return renew_one(view, present, hash, cost, admitted_state, now);
        });
  }
  return charge_detail::force_state(
      table, policy, hash, now, admitted_state, [&](uint64_t state, const Instant& when) noexcept {
        return renew(policy.window, state, admitted_state, cost, when);
      });
}

template <class Table>
bool reset_one(Table& table, const Policy& policy, const Hash128& hash) noexcept {
  if (table.is_stale()) [[unlikely]] {
    return charge_detail::by_present_terms(table, policy,
                                           [&](Table& view, const Policy& present) noexcept {
                                             return reset_one(view, present, hash);
                                           });
  }
  if (policy.algorithm == Algorithm::sliding_log) {
    return reset_log(table, policy, hash);
  }
  return charge_detail::change_state(table, policy, hash, [](uint64_t) noexcept { return 0; });
}

}  // namespace penstock::limit
