// How charge_all does it; see charge.h for what it does.
#pragma once

#include "shared/limit/charge-detail-inl.h"

namespace penstock::limit {

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
  const uint64_t then = policy.algorithm == Algorithm::asked
                            ? admitted.state  // Redis's word, which no reload changes
                            : charge_detail::admitted_state(table, policy, admitted);
  if (charge_detail::is_spread(policy)) [[unlikely]] {
    if (policy.algorithm == Algorithm::sliding_log) {
      return refund_log(table, policy, hash, cost, then);
    }
    if (lease_detail::is_own_lease(policy, then)) {
      return refund_one(table, share_of(policy, cost), hash, cost, then, now);
    }
    if (policy.algorithm == Algorithm::asked) {
      return policy.lessor->correct(policy, hash, -static_cast<int64_t>(cost), then);
    }
    return correct_leased(table, policy, hash, -charge_detail::ticks_of(policy, cost), then, now);
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
  if (policy.lessor != nullptr) {
    Charge charge(&policy, hash, 0);
    Decision decision = charge_detail::decide_shared(table, charge, now);
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
  if (charge_detail::is_spread(policy)) [[unlikely]] {
    if (policy.algorithm == Algorithm::sliding_log) {
      return overdraw_log(table, policy, hash, beyond, now);
    }
    if (policy.algorithm == Algorithm::asked) {
      return policy.lessor->correct(policy, hash, static_cast<int64_t>(beyond), 0);
    }
    return correct_leased(table, policy, hash, charge_detail::ticks_of(policy, beyond), 0, now);
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
  if (policy.lessor != nullptr) {
    if (lease_detail::is_own_lease(policy, admitted_state)) {
      return renew_one(table, share_of(policy, cost), hash, cost, admitted_state, now);
    }
    policy.lessor->renew(policy, hash, cost, admitted_state);
    return admitted_state;
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
  if (charge_detail::is_spread(policy)) {
    return policy.algorithm == Algorithm::sliding_log ? reset_log(table, policy, hash)
                                                      : reset_shared(table, policy, hash);
  }
  return charge_detail::change_state(table, policy, hash, [](uint64_t) noexcept { return 0; });
}

}  // namespace penstock::limit
