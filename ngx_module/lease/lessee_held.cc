#include "ngx_module/lease/lessee_parts.h"

#include <algorithm>
#include <cstdlib>

namespace penstock {
namespace {

constexpr int64_t kLookEveryMs = 20;
constexpr int64_t kIdleMs = 20;  // of a busy key
constexpr int64_t kSlowIdleMs = 50;
constexpr double kSlowRate = 20;  // units a second

}  // namespace

// ---- what is held

uint64_t Lessee::batch_of(const limit::Policy& policy, const limit::Hash128& key,
                          int64_t now_ns) noexcept {
  Rates::Key& known = rates_->of(key);
  // Of a trip as slow as nearly all are not: the mean and four times the spread, as TCP waits.
  const uint64_t batch =
      limit::batch_of(policy, Rates::rate_at(known, now_ns), hosts, trip_ns_ + 4 * spread_ns_);
  known.enough = batch / 2;
  return batch;
}

void Lessee::take_more(const limit::Policy& policy, const limit::Hash128& key, uint64_t cost,
                       uint64_t left, int64_t now_ns) noexcept {
  // Most often a look at what was enough last is enough.
  if (left > rates_->of(key).enough || away || (some_away && is_lost(key))) {
    return;
  }
  const uint64_t batch = batch_of(policy, key, now_ns);
  if (left > batch / 2 || batch < cost) {
    return;
  }
  const limit::Instant at = now();
  limit::Renewal renewal;
  if (!limit::begin_renewal(*zone_.table, policy, key, false, at.steady_ns / kNsPerMs + kLockMs, at,
                            renewal)) {
    return;
  }
  void* memory = allocate(sizeof(Call));
  if (memory == nullptr) {
    return;
  }
  auto* call = new (memory) Call{.lessee = this, .policy = policy, .key = key, .each = cost};
  call->batch = batch - std::min(batch, renewal.units);
  call->renews = true;
  call->renewal = renewal;
  send(call);
}

void Lessee::watch(const limit::Policy& policy, const limit::Hash128& key) noexcept {
  Rates::Key& known = rates_->of(key);
  void* memory = known.watched ? nullptr : allocate(sizeof(Watched));
  if (memory == nullptr) {
    return;
  }
  known.watched = true;
  auto* watched = new (memory) Watched{.policy = policy, .key = key};
  watched->due_ns = monotonic_ns() + kLookEveryMs * kNsPerMs;
  watched->units = 0;
  ngx_queue_insert_tail(&watched_, &watched->link);
  if (!watch_event_.timer_set) {
    ngx_add_timer(&watch_event_, kLookEveryMs);
  }
}

void Lessee::on_watch(ngx_event_t* event) noexcept {
  auto& self = *static_cast<Lessee*>(event->data);
  self.look_at_watched(false);
  if (!ngx_queue_empty(&self.watched_)) {
    ngx_add_timer(event, kLookEveryMs);
  }
}

// ---- what is counted

void Lessee::note_breaker(bool open) noexcept {
  open_ = open;
  facts_->breakers[ngx_process_slot].store(open ? Breaker::kOpen : Breaker::kClosed);
}

void Lessee::note_trip(int64_t took_ns) noexcept {
  const int64_t off_ns = took_ns - trip_ns_;
  trip_ns_ += off_ns / 8;
  spread_ns_ += (std::abs(off_ns) - spread_ns_) / 4;
}

void Lessee::account(const Call& call, const Account& account) noexcept {
  LimitFacts& facts = facts_->of(call.policy.name);
  facts.count(Units::kLeased, account.granted);
  facts.count(Units::kUsed, account.spent);
  facts.count(Units::kReturned, account.valid ? call.renewal.back : 0);
  facts.count(Units::kLapsed, account.lapsed);
  facts.count(Units::kOver, call.owed == 0 ? 0 : account.over);
  facts.count(Units::kUnder, std::min(call.refused, account.room));
}

// ---- what lies idle

// Gives back what nobody has spent of for a while, or all.
void Lessee::look_at_watched(bool all) noexcept {
  const int64_t now_ns = monotonic_ns();
  const limit::Instant at = now();
  const ngx_queue_t* last = ngx_queue_empty(&watched_) ? nullptr : ngx_queue_last(&watched_);
  for (bool go_on = last != nullptr; go_on;) {
    auto& watched = *ngx_queue_data(ngx_queue_head(&watched_), Watched, link);
    if (!all && watched.due_ns > now_ns) {  // NOLINT(*Malloc): what was let go is off the list
      return;
    }
    go_on = &watched.link != last;
    ngx_queue_remove(&watched.link);
    Rates::Key& known = rates_->of(watched.key);
    const double rate = Rates::rate_at(known, now_ns);
    const int64_t idle_ns = rate > kSlowRate
                                ? std::max(kIdleMs * kNsPerMs, static_cast<int64_t>(4e9 / rate))
                                : kSlowIdleMs * kNsPerMs;
    const uint64_t units = limit::held_of(*zone_.table, watched.policy, watched.key, at).units;
    const bool idle = units == watched.units && now_ns - known.used_ns > idle_ns;
    limit::Renewal renewal;
    const bool give_back = units > 0 && (all || idle) &&
                           limit::begin_renewal(*zone_.table, watched.policy, watched.key, true,
                                                at.steady_ns / kNsPerMs + kLockMs, at, renewal);
    if (units > 0 && !give_back && !all) {
      watched.units = units;
      watched.due_ns = now_ns + kLookEveryMs * kNsPerMs;
      ngx_queue_insert_tail(&watched_, &watched.link);
      continue;
    }
    known.watched = false;
    void* memory = give_back ? allocate(sizeof(Call)) : nullptr;
    if (memory != nullptr) {
      auto* call = new (memory) Call{.lessee = this, .policy = watched.policy, .key = watched.key};
      call->renews = true;
      call->renewal = renewal;
      send(call);
    }
    ngx_free(&watched);
  }
}

}  // namespace penstock
