#include "ngx_module/lease/waiting.h"

#include <algorithm>

#include "ngx_module/request/receipt.h"
#include "ngx_module/request/suspend.h"
#include "shared/base/clock.h"

namespace penstock {
namespace {

using limit::Charge;
using limit::Outcome;

constexpr unsigned kMostRounds = 2;  // so often a request asks: others may take what it was told of

void end_request(void* data) noexcept {
  auto& wait = *static_cast<Wait*>(data);
  wait.lessee->end_wait(wait);
}

// That of a lessee's, or any.
Wait* find_wait(ngx_http_request_t* r, const Lessee* of = nullptr) noexcept {
  for (ngx_pool_cleanup_t* c = r->pool->cleanup; c != nullptr; c = c->next) {
    auto* wait = static_cast<Wait*>(c->data);
    if (c->handler == end_request && wait->r == r && (of == nullptr || wait->lessee == of)) {
      return wait;
    }
  }
  return nullptr;
}

bool is_suspended(ngx_http_request_t* r) noexcept {
  for (ngx_pool_cleanup_t* c = r->pool->cleanup; c != nullptr; c = c->next) {
    const auto* wait = static_cast<Wait*>(c->data);
    if (c->handler == end_request && wait->r == r && wait->suspended) {
      return true;
    }
  }
  return false;
}

void begin(Wait& wait) noexcept {
  wait.deadline_ns =
      monotonic_ns() + static_cast<int64_t>(wait.lessee->zone().sharing->timeout) * kNsPerMs;
}

Wait* wait_of(ngx_http_request_t* r, Lessee& lessee) noexcept {
  Wait* wait = find_wait(r, &lessee);
  if (wait == nullptr) {
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->pool, sizeof(Wait));
    if (cleanup == nullptr) {
      return nullptr;
    }
    wait = new (cleanup->data) Wait;
    wait->r = r;
    wait->lessee = &lessee;
    cleanup->handler = end_request;
  }
  return wait;
}

Hand* add_hand(Wait& wait, const limit::Policy& policy, const limit::Hash128& key,
               uint64_t cost) noexcept {
  auto* hand = make<Hand>(wait.r->pool);
  if (hand != nullptr) {
    hand->wait = &wait;
    hand->policy = &policy;
    hand->key = key;
    hand->cost = cost;
    hand->next = wait.hands;
    wait.hands = hand;
  }
  return hand;
}

bool is_shared(const Charge& charge) noexcept { return charge.policy->lessor != nullptr; }

Hand* hand_for(const Wait& wait, const Charge& charge) noexcept {
  for (Hand* hand = wait.hands; hand != nullptr; hand = hand->next) {
    if (hand->key.lo == charge.hash.lo && hand->key.hi == charge.hash.hi &&
        hand->cost == charge.cost) {
      return hand;
    }
  }
  return nullptr;
}

void take_in_hand(const Wait& wait, std::span<Charge> charges) noexcept {
  for (Charge& charge : charges) {
    const Hand* hand = is_shared(charge) ? hand_for(wait, charge) : nullptr;
    if (hand != nullptr && hand->filled) {
      charge.found = true;
      charge.ref = limit::Ref();
      charge.ref.state = hand->admitted;
      charge.ref.expect_key = hand->left;
      charge.ref.expect_state = static_cast<uint64_t>(hand->reset_ns);
    }
  }
}

// What was paid is counted; what Redis said earlier, and refuses by, may be otherwise by now.
void follow_up(Lessee& lessee, Wait* wait, std::span<Charge> charges, int64_t now_ns) noexcept {
  for (Charge& charge : charges) {
    if (!is_shared(charge)) {
      continue;
    }
    if (!charge.charged) {
      if (!charge.decision.admit && charge.decision.retry_after_ns > 0) {
        lessee.is_away(charge.hash)
            ? lessee.note_refused(charge.hash, charge.cost)
            : lessee.refresh(*charge.policy, charge.hash, charge.cost, now_ns);
      }
      continue;
    }
    if (charge.found && charge.ref.slot != nullptr) {
      lessee.facts().count(Fact::kHeld);
      const uint64_t held = limit::Held::of(charge.ref.state).units;
      lessee.take_more(*charge.policy, charge.hash, charge.cost, held - std::min(held, charge.cost),
                       now_ns);
      continue;
    }
    Hand* hand = wait == nullptr ? nullptr : hand_for(*wait, charge);
    if (hand != nullptr && hand->filled) {
      hand->filled = false;
      lessee.facts().count(Fact::kWaited);
      continue;
    }
    lessee.facts().count(Fact::kAlone);
    // What runs is not spent, and what passes by `allow` is not counted.
    if (charge.policy->alone != limit::Algorithm::concurrency && !charge.advisory &&
        lessee.without == limit::Without::kLocal) {
      lessee.note_alone(*charge.policy, charge.hash, charge.cost);
    }
  }
}

// It has asked often enough: what a dry run would say of it stays unknown.
void let_dry_runs_pass(std::span<Charge> charges) noexcept {
  for (Charge& charge : charges) {
    if (charge.advisory && is_shared(charge) && !charge.found) {
      charge.found = true;
      charge.ref = limit::Ref();
    }
  }
}

// It has asked often enough: others were faster each time.
void refuse_those_that_ask(std::span<Charge> charges) noexcept {
  for (Charge& charge : charges) {
    if (charge.decision.asks()) {
      charge.decision.retry_after_ns = kNsPerMs;
    }
  }
}

// It is judged once more, to see that nobody waits for what this host knows.
bool asks_still(const limit::Table& table, const Charge& charge) noexcept {
  Charge again(charge.policy, charge.hash, charge.cost);
  return limit::peek_all(table, std::span(&again, 1), instant(table)) == Outcome::unknown;
}

// Woken by wake(), or by something else.
void on_write(ngx_http_request_t* r) noexcept {
  is_suspended(r) ? stay_suspended(r) : resume_phases(r);
}

}  // namespace

Outcome charge_shared(ngx_http_request_t* r, Zone& zone, std::span<Charge> charges,
                      const limit::Instant& now) noexcept {
  auto& lessee = *static_cast<Lessee*>(zone.lessor);
  const int64_t now_ns = zone.table->monotonic_ns(now);
  Wait* wait = find_wait(r, &lessee);
  lessee.look(wait != nullptr && wait->failed, now_ns);
  if (wait != nullptr) {
    take_in_hand(*wait, charges);
  }
  if (wait != nullptr && wait->rounds == kMostRounds) {
    let_dry_runs_pass(charges);
  }
  for (const Charge& charge : charges) {
    if (is_shared(charge) && (wait == nullptr || wait->rounds == 0)) {
      lessee.note_use(charge.hash, charge.cost, now_ns);
    }
  }
  const Outcome outcome = limit::charge_all(*zone.table, charges, now);
  if (outcome == Outcome::admitted || outcome == Outcome::refused) {
    follow_up(lessee, wait, charges, now_ns);
  } else if (outcome == Outcome::unknown && wait != nullptr && wait->rounds == kMostRounds) {
    refuse_those_that_ask(charges);
    wait->rounds = 0;
    return Outcome::refused;
  }
  if (wait != nullptr && outcome != Outcome::unknown) {  // what is judged next waits anew
    wait->rounds = 0;
    wait->failed = false;
  }
  return outcome;
}

bool is_denied(const Zone& zone, std::span<const Charge> charges) noexcept {
  return zone.lessor->without == limit::Without::kDeny &&
         std::any_of(charges.begin(), charges.end(), [](const Charge& charge) {
           return is_shared(charge) && charge.policy->lessor->is_away(charge.hash);
         });
}

ngx_int_t wait_for_leases(ngx_http_request_t* r, Zone& zone, std::span<Charge> charges) noexcept {
  auto& lessee = *static_cast<Lessee*>(zone.lessor);
  Wait* wait = wait_of(r, lessee);
  if (wait == nullptr || !suspend_phases(r, on_write)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (wait->rounds++ == 0) {
    begin(*wait);
  }
  bool needed = false;
  for (const Charge& charge : charges) {
    if (!is_shared(charge) || !charge.decision.asks()) {
      continue;
    }
    needed = needed || asks_still(*zone.table, charge);
    Hand* hand = hand_for(*wait, charge);
    if (hand == nullptr) {
      hand = add_hand(*wait, *charge.policy, charge.hash, charge.cost);
      if (hand == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
      }
    }
    if (hand->group == nullptr && !lessee.ask(*wait, *hand)) {
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
  }
  if (!needed) {
    lessee.facts().count(Fact::kNeedless);
  }
  lessee.suspend(*wait);
  return NGX_AGAIN;
}

bool hears_redis(const Zone& zone) noexcept {
  return static_cast<const Lessee*>(zone.lessor)->up(monotonic_ns());
}

ngx_int_t wait_to_hear(ngx_http_request_t* r, Zone& zone,
                       std::span<const Asked> counters) noexcept {
  auto& lessee = *static_cast<Lessee*>(zone.lessor);
  const Wait* before = find_wait(r, &lessee);
  if (counters.empty() || (before != nullptr && before->heard) || !lessee.up(monotonic_ns())) {
    return NGX_OK;
  }
  Wait* wait = wait_of(r, lessee);
  if (wait == nullptr || !suspend_phases(r, on_write)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  for (const Asked& asked : counters) {
    Hand* hand = add_hand(*wait, *asked.policy, asked.key, 0);
    if (hand == nullptr || !lessee.ask(*wait, *hand)) {
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
  }
  wait->heard = true;
  begin(*wait);
  lessee.suspend(*wait);
  ++r->main->count;
  return NGX_DONE;
}

}  // namespace penstock
