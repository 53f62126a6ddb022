// The sliding log in the table: one slot for each unit admitted in the last window (policy.h).
#pragma once

#include <algorithm>
#include <span>

#include "shared/limit/charge_record.h"
#include "shared/limit/terms.h"

namespace penstock::limit {
namespace log_detail {

constexpr uint64_t kAhead = 8;  // entries whose memory is fetched while earlier ones are read

// A unit's slot, and its end by the present terms.
template <class Table>
bool find_entry(const Table& table, const Policy& policy, const Hash128& place, Ref& ref) noexcept {
  if (!table.find(place, policy.mark, ref)) {
    return false;
  }
  carry(table, policy, ref);
  return true;
}

// Calls visit(place, ref) for each of `count` units' places, with ref.state 0 where there is no
// slot; until it returns false. Begins at `from` and goes round.
template <class Table, class Visit>
void for_each(const Table& table, const Policy& policy, uint64_t count, const Hash128& key,
              uint64_t from, const Visit& visit) noexcept {
  Hash128 places[kAhead];
  const auto place = [&](uint64_t i) noexcept { return entry(key, (from + i) % count); };
  for (uint64_t i = 0; i < std::min(kAhead, count); ++i) {
    places[i] = place(i);
    table.prefetch(places[i]);
  }
  for (uint64_t i = 0; i < count; ++i) {
    const Hash128 here = places[i % kAhead];
    if (i + kAhead < count) {
      places[i % kAhead] = place(i + kAhead);
      table.prefetch(places[i % kAhead]);
    }
    Ref ref;
    if (!find_entry(table, policy, here, ref)) {
      ref = Ref();
    }
    if (!visit(here, ref)) {
      return;
    }
  }
}

inline uint64_t places_of(const Policy& policy) noexcept {
  return std::max(policy.limit, std::min(policy.places, kMaxLog));
}

// When the latest of the `count` that end first ends.
inline uint64_t ending(std::span<uint64_t> ends, uint64_t count) noexcept {
  std::nth_element(ends.begin(), ends.begin() + static_cast<ptrdiff_t>(count) - 1, ends.end());
  return ends[count - 1];
}

// What no end that is as it should be lies beyond, if one of now is `latest`.
inline uint64_t ceiling(uint64_t latest) noexcept { return latest + kClockSkewNs * kTicksPerNs; }

}  // namespace log_detail

// An end so far ahead that no clock's skew explains it is of a longer window before a reload. It
// counts as that of a unit admitted now, and a refusal hands back that end as next_state, for
// clamp_log to store. Not inlined: the other algorithms need no such frame.
template <class Table>
[[gnu::noinline]] Decision decide_log(const Table& table, const Policy& policy, const Hash128& key,
                                      uint64_t cost, const Instant& now) noexcept {
  const uint64_t ticks = gcra_ticks(now.steady_ns);
  const uint64_t latest = ticks + gcra_ticks(policy.length_ns);
  uint64_t ends[kMaxLog];
  uint64_t live = 0;
  uint64_t last = ticks;
  Decision decision;
  const auto count = [&](const Hash128&, const Ref& ref) noexcept {
    if (ref.state > ticks) {
      uint64_t end = ref.state;
      if (end > log_detail::ceiling(latest)) [[unlikely]] {
        end = decision.next_state = latest;
      }
      ends[live++] = end;
      last = std::max(last, end);
    }
    return true;
  };
  log_detail::for_each(table, policy, log_detail::places_of(policy), key, 0, count);
  const uint64_t room = policy.limit > live ? policy.limit - live : 0;
  decision.admit = cost <= room;
  decision.remaining = decision.admit ? room - cost : room;
  if (decision.admit && cost != 0) {
    decision.next_state = latest;
    last = std::max(last, latest);
  }
  decision.reset_ns = gcra_ns_up(last - ticks);
  if (!decision.admit) {
    decision.retry_after_ns =
        cost > policy.limit
            ? kNever
            : gcra_ns_up(log_detail::ending({ends, live}, live + cost - policy.limit) - ticks);
  }
  return decision;
}

// Puts `latest` in place of every end that lies beyond its ceiling; 0 does nothing.
template <class Table>
void clamp_log(Table& table, const Policy& policy, const Hash128& key, uint64_t latest) noexcept {
  if (latest == 0) {
    return;
  }
  log_detail::for_each(table, policy, log_detail::places_of(policy), key, 0,
                       [&](const Hash128&, const Ref& ref) noexcept {
                         if (ref.state > log_detail::ceiling(latest)) {
                           table.commit(ref, latest);
                         }
                         return true;
                       });
}

// Gives back up to `cost` units whose lease ends at `end`: which of them is all the same.
template <class Table>
void refund_log(Table& table, const Policy& policy, const Hash128& key, uint64_t cost,
                uint64_t end) noexcept {
  log_detail::for_each(table, policy, log_detail::places_of(policy), key, end,
                       [&](const Hash128& place, Ref ref) noexcept {
                         while (cost != 0 && ref.state == end && ref.slot != nullptr) {
                           if (table.commit(ref, 0)) {
                             --cost;
                             break;
                           }
                           if (!log_detail::find_entry(table, policy, place, ref)) {
                             break;
                           }
                         }
                         return cost != 0;
                       });
}

// Takes up to `cost` idle places until `end`. Returns how many it got; `full` if for want of slots.
template <class Table>
uint64_t take_entries(Table& table, const Policy& policy, const Hash128& key, uint64_t cost,
                      uint64_t end, const Instant& now, bool& full) noexcept {
  const uint64_t ticks = gcra_ticks(now.steady_ns);
  uint64_t taken = 0;
  full = false;
  // Where it begins depends on when it ends, and so does refund_log.
  log_detail::for_each(
      table, policy, policy.limit, key, end, [&](const Hash128& place, Ref ref) noexcept {
        for (unsigned attempt = 0; ref.state <= ticks; ++attempt) {
          if (ref.slot == nullptr) {
            const auto claim = table.claim(place, policy.mark, now, ref);
            if (claim == Table::ClaimResult::full) {
              full = true;
              break;
            }
            if (claim == Table::ClaimResult::mine && ref.state > ticks) {
              table.release(ref);  // it may have been live by this clock: see (4) in table.h
              break;
            }
            if (claim == Table::ClaimResult::exists) {
              carry(table, policy, ref);
            }
            continue;
          }
          if (table.commit(ref, end)) {
            ++taken;
            break;
          }
          Table::back_off(attempt, end);
          if (!log_detail::find_entry(table, policy, place, ref)) {
            ref = Ref();
          }
        }
        return taken != cost;
      });
  return taken;
}

template <class Table>
Outcome charge_log(Table& table, Charge& charge, const Instant& now) noexcept {
  bool full = false;
  const uint64_t end = charge.decision.next_state;
  const uint64_t taken =
      take_entries(table, *charge.policy, charge.hash, charge.cost, end, now, full);
  if (taken == charge.cost) {
    charge.charged = true;
    return Outcome::admitted;
  }
  refund_log(table, *charge.policy, charge.hash, taken, end);
  charge.decision = decide_log(table, *charge.policy, charge.hash, charge.cost, now);
  if (!full && charge.decision.admit) {
    // Others that were giving back at this moment: as if they had not yet.
    charge.decision.admit = false;
    charge.decision.retry_after_ns = 1;
  }
  return full ? Outcome::table_full : Outcome::refused;
}

template <class Table>
void overdraw_log(Table& table, const Policy& policy, const Hash128& key, uint64_t cost,
                  const Instant& now) noexcept {
  bool full = false;
  take_entries(table, policy, key, cost, gcra_ticks(now.steady_ns) + gcra_ticks(policy.length_ns),
               now, full);
}

template <class Table>
bool reset_log(Table& table, const Policy& policy, const Hash128& key) noexcept {
  bool any = false;
  log_detail::for_each(table, policy, log_detail::places_of(policy), key, 0,
                       [&](const Hash128&, Ref ref) noexcept {
                         any |= ref.slot != nullptr && ref.state != 0 && table.commit(ref, 0);
                         return true;
                       });
  return any;
}

}  // namespace penstock::limit
