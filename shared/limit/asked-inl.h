// Windows and logs that hosts share: each request asks, and is told (lease.h).
#pragma once

#include "shared/limit/lease-inl.h"

namespace penstock::limit {

// What Redis said last of a key whose units are not held, in two slots:
//   refused   Held: requests of that many units or more are refused until its end
//   left      Held: so many units were left, of those that are back at its end; scaled_by() fewer
//             bits
namespace asked_detail {

inline Hash128 refused_place(const Policy& policy, const Hash128& key) noexcept {
  return lease_detail::place_of(policy, key);
}
inline Hash128 left_place(const Policy& policy, const Hash128& key) noexcept {
  const Hash128 place = lease_detail::place_of(policy, key);
  return {~place.lo, ~place.hi};
}

inline unsigned scaled_by(const Policy& policy) noexcept {
  unsigned bits = 0;
  while (policy.limit >> bits > kMostHeld) {
    ++bits;
  }
  return bits;
}

template <class Table>
Held read(const Table& table, const Hash128& place, const Instant& now) noexcept {
  Ref ref;
  return table.find(place, Kind::lease, ref) ? lease_detail::live_at(ref.state, now) : Held();
}

template <class Table>
void write(Table& table, const Hash128& place, const Held& held, const Instant& now) noexcept {
  Ref ref;
  for (unsigned attempt = 0;; ++attempt) {
    if (!table.find(place, Kind::lease, ref) &&
        (held.end_ms == 0 ||
         table.claim(place, Kind::lease, now, ref) == Table::ClaimResult::full)) {
      return;
    }
    if (table.commit(ref, held.word())) {
      return;
    }
    Table::back_off(attempt, ref.expect_state);
  }
}

}  // namespace asked_detail

// An answer of Redis: `left` units, all of them in `reset_ms`; if so many as `each` do not fit they
// do in `wait_ms`.
template <class Table>
void note_asked(Table& table, const Policy& policy, const Hash128& key, uint64_t each,
                int64_t wait_ms, uint64_t left, int64_t reset_ms, const Instant& now) noexcept {
  using namespace asked_detail;
  const int64_t now_ms = lease_detail::ms_of(now);
  write(table, refused_place(policy, key),
        wait_ms > 0 ? Held{now_ms + wait_ms, false, std::min(each, kMostHeld)} : Held(), now);
  write(table, left_place(policy, key), {now_ms + reset_ms, false, left >> scaled_by(policy)}, now);
}

// So many units are used, as last noted; 0: none, or unknown.
template <class Table>
uint64_t known_used(const Table& table, const Policy& policy, const Hash128& key,
                    const Instant& now) noexcept {
  using namespace asked_detail;
  const Held left = read(table, left_place(policy, key), now);
  return left.end_ms == 0 ? 0
                          : policy.limit - std::min(policy.limit, left.units << scaled_by(policy));
}

template <class Table>
[[gnu::noinline]] Decision decide_asked(const Table& table, Charge& charge,
                                        const Instant& now) noexcept {
  using namespace asked_detail;
  constexpr int64_t kNsPerMilli = 1'000'000;
  const Policy& policy = *charge.policy;
  Decision decision;
  if (lease_detail::in_hand(charge)) {
    decision.remaining = charge.ref.expect_key;
    decision.reset_ns = static_cast<int64_t>(charge.ref.expect_state);
    decision.admit = true;
    decision.next_state = charge.ref.state;
    return decision;
  }
  const Held left = read(table, left_place(policy, charge.hash), now);
  decision.remaining = left.end_ms == 0 ? policy.limit : left.units << scaled_by(policy);
  decision.reset_ns = left.end_ms == 0 ? 0 : left.end_ms * kNsPerMilli - now.steady_ns;
  charge.found = false;
  if (charge.cost == 0) {
    decision.admit = true;
    return decision;
  }
  if (charge.cost > policy.limit) {
    decision.retry_after_ns = kNever;
    return decision;
  }
  if (policy.lessor->is_away(charge.hash)) {
    return lease_detail::decide_alone(table, charge, now);
  }
  const Held refused = read(table, refused_place(policy, charge.hash), now);
  decision.retry_after_ns = refused.units != 0 && charge.cost >= refused.units
                                ? refused.end_ms * kNsPerMilli - now.steady_ns
                                : kAsk;
  return decision;
}

// A shared key's count is forgotten here and, by the lessor, in Redis.
template <class Table>
bool reset_shared(Table& table, const Policy& policy, const Hash128& key) noexcept {
  policy.lessor->forget(policy, key);
  const Instant now;  // at which nothing has ended
  if (policy.algorithm == Algorithm::leased) {
    note_told(table, policy, key, 0, now);
  } else {
    asked_detail::write(table, asked_detail::refused_place(policy, key), {}, now);
    asked_detail::write(table, asked_detail::left_place(policy, key), {}, now);
  }
  return true;
}

}  // namespace penstock::limit
