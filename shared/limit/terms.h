// Terms: what a state was written by, and how it is carried over when a reload has changed that.
//
// A state's meaning hangs on its limit's rate and period: a bucket's TAT is a time that the rate
// has made of units, a window's count is of a period. Both are the limit's terms. (Its burst, or
// how much a window admits, is not in the state: that may change freely, and what was counted
// stays.) A reload that changes the terms of any limit begins a generation (table.h, (6)); the
// table remembers what each limit said in the last eight, and when they began.
//
// A state of an earlier generation is carried over to the moment at which the next one began, by
// the terms until then; there, what it has used becomes as many units by the new terms; and so on
// to the present. So units flow back by the rate that was in force at the time, and no reload gives
// any back or takes more.
//
//   bucket to bucket    units used, exactly, rounded up to a tick
//   window to window    what is counted at that moment, in the window of that moment
//   bucket and window   the same; units rounded up
//   log to log          each unit's end moves by as much as the length: when it came stays
//   leases              are held as they are; from and to others nothing is carried over
//
// A process of an earlier configuration (Nginx's old workers, while they drain) decides by the
// newest terms, with the burst that it knows: the rate of a limit is one for all at any moment.
//
// What isn't known any more (more than eight changes ago, or the table had no slot for it) is taken
// for written by the oldest terms that are known; if it is of another kind, for nothing.
#pragma once

#include <cstdint>
#include <span>

#include "shared/limit/policy.h"
#include "shared/limit/table.h"

namespace penstock::limit {

// A limit's terms in one word; never 0.
uint64_t terms_of(const Policy& policy) noexcept;

// A state by the terms `from`, as one by the terms `to`, which came into force at `began`.
uint64_t carry_over(uint64_t from, uint64_t to, uint64_t state, const Instant& began) noexcept;

// The policy, but with these terms. Those of another algorithm change nothing.
Policy with_terms(Policy policy, uint64_t terms) noexcept;

// How long states written by earlier terms may be live at the longest.
int64_t horizon_ns(const Policy& policy) noexcept;

// The limit of a sliding log's terms; 0 for other terms.
uint64_t log_limit_of(uint64_t terms) noexcept;

// What the slots of such terms are.
Kind kind_of(uint64_t terms) noexcept;

// A state of a limit's, written in `generation` as `kind`, as one of the present.
template <class Table>
[[gnu::noinline]] uint64_t carried(const Table& table, const Policy& policy, uint64_t generation,
                                   Kind kind, uint64_t state) noexcept {
  constexpr uint64_t kRemembered = Generations::kRemembered;
  const uint64_t present = table.generation();
  const Generations generations = table.generations();
  uint64_t at = present - generation > kRemembered ? present - kRemembered : generation;
  uint64_t from = 0;
  while (from == 0 && at <= present) {
    from = table.terms(policy.name, at++);
  }
  if (from == 0 || kind_of(from) != kind) {
    return kind == policy.mark.kind() ? state : 0;
  }
  for (; at <= present; ++at) {
    const uint64_t to = at == present ? terms_of(policy) : table.terms(policy.name, at);
    if (to != 0 && to != from) {
      state = carry_over(from, to, state, generations.began[at % kRemembered]);
      from = to;
    }
  }
  return state;
}

// What find() has found of a limit's key is carried over, if it is of earlier terms.
template <class Table>
void carry(const Table& table, const Policy& policy, Ref& ref) noexcept {
  if (ref.expect_key == ref.key) {
    return;
  }
  if (table.is_ahead(ref.expect_key)) {
    ref.key = ref.expect_key;  // a generation has just begun: what is in its slots stays of it
    return;
  }
  const uint64_t generation = table.generation_of(ref.expect_key);
  const auto kind = static_cast<Kind>(ref.expect_key & 7);
  if (generation != table.generation() || kind != policy.mark.kind()) {
    ref.state = carried(table, policy, generation, kind, ref.expect_state);
  }
}

// A configuration takes effect with these limits, each by its name: what they say is remembered,
// and where one says something else than before, the next generation begins.
// REQUIRES: no others do so meanwhile.
template <class Table>
void begin_terms(Table& table, std::span<const Policy> limits, const Instant& now) noexcept {
  Generations next = table.generations();
  int64_t horizon = 0;
  for (const Policy& limit : limits) {
    const uint64_t before = table.terms(limit.name, table.generation());
    if (before != 0 && before != terms_of(limit)) {
      next.present = table.generation() + 1;
      horizon = horizon > horizon_ns(limit) ? horizon : horizon_ns(limit);
    }
  }
  for (const Policy& limit : limits) {
    if (table.terms(limit.name, next.present) == 0) {
      table.note_terms(limit.name, next.present, terms_of(limit), now);
    }
  }
  if (next.present == table.generation()) {
    return;
  }
  next.began[next.present % Generations::kRemembered] = now;
  if (now.steady_ns >= next.held_until_ns) {
    next.held_since = now;
  }
  const int64_t until = now.steady_ns + horizon;
  next.held_until_ns = next.held_until_ns > until ? next.held_until_ns : until;
  table.set_generations(next);
}

// How many places of a sliding log may hold live units: what the largest limit of the generations
// that are remembered allowed.
template <class Table>
uint64_t log_places(const Table& table, const Policy& policy) noexcept {
  uint64_t places = policy.limit;
  for (uint64_t ago = 0; ago <= Generations::kRemembered && ago <= table.generation(); ++ago) {
    const uint64_t limit = log_limit_of(table.terms(policy.name, table.generation() - ago));
    places = limit > places ? limit : places;
  }
  return places;
}

}  // namespace penstock::limit
