// The steps of charge_all and its kind; see charge.h.
#pragma once

#include "shared/limit/asked-inl.h"
#include "shared/limit/charge.h"
#include "shared/limit/log-inl.h"

namespace penstock::limit {

namespace charge_detail {

inline bool is_log(const Charge& charge) noexcept {
  return charge.policy->algorithm == Algorithm::sliding_log;
}

// The state is more than one word.
inline bool is_spread(const Policy& policy) noexcept {
  return policy.algorithm >= Algorithm::sliding_log;
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
Decision decide_shared(const Table& table, Charge& charge, const Instant& now) noexcept {
  return charge.policy->algorithm == Algorithm::leased ? decide_leased(table, charge, now)
                                                       : decide_asked(table, charge, now);
}

template <class Table>
[[gnu::noinline]] void look_up_other(const Table& table, Charge& charge,
                                     const Instant& now) noexcept {
  if (is_log(charge)) {
    charge.decision = decide_log(table, *charge.policy, charge.hash, charge.cost, now);
    return;
  }
  if (is_spread(*charge.policy)) {
    charge.decision = decide_shared(table, charge, now);
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

// What such a limit has for a request of another cost.
template <class Table>
Decision decide_spread(const Table& table, const Charge& charge, uint64_t cost,
                       const Instant& now) noexcept {
  if (is_log(charge)) {
    return decide_log(table, *charge.policy, charge.hash, cost, now);
  }
  Charge other(charge.policy, charge.hash, cost);
  return decide_shared(table, other, now);
}

template <class Table>
Outcome judge(const Table& table, std::span<Charge> charges, const Instant& now) noexcept {
  Outcome outcome = Outcome::admitted;
  for (Charge& charge : charges) {
    charge.charged = false;
    look_up(table, charge, now);
    if (charge.decision.admit || (charge.advisory && !charge.decision.asks())) {
      continue;
    }
    if (charge.decision.retry_after_ns < 0) [[unlikely]] {
      outcome = charge.decision.never()        ? Outcome::never_admissible
                : outcome == Outcome::admitted ? Outcome::unknown
                                               : outcome;
    } else if (outcome != Outcome::never_admissible) {
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
    charge.decision = is_spread(*charge.policy) ? decide_spread(table, charge, 0, now)
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
  if (is_spread(*charge.policy)) [[unlikely]] {
    return is_log(charge) ? charge_log(table, charge, now) : charge_leased(table, charge, now);
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

// Of a shared bucket's units.
inline int64_t ticks_of(const Policy& policy, uint64_t cost) noexcept {
  const uint64_t most = kMaxTolerance / policy.gcra.interval;
  return static_cast<int64_t>((cost < most ? cost : most) * policy.gcra.interval);
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

}  // namespace penstock::limit
