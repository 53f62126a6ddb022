#include "ngx_module/hand_over/receipt_codec.h"

#include <algorithm>
#include <cstring>

#include "ngx_module/lease/shared_secret.h"
#include "shared/limit/terms.h"
#include "shared/wire/receipt.h"

namespace penstock {
namespace {

static_assert(kMaxCharges <= wire::kMaxReceiptEntries &&
              kMaxNameBytes <= wire::kMaxReceiptNameBytes);

Zone* zone_of(const MainConf& main, const limit::Table& table) noexcept {
  for (Zone* zone : main.zones) {
    if (zone->table.has_value() && &*zone->table == &table) {
      return zone;
    }
  }
  return nullptr;
}

const Counter* counter_named(const Zone& zone, std::string_view name) noexcept {
  for (const Counter* counter : zone.counters) {
    if (view(counter->rule->name) == name) {
      return counter;
    }
  }
  return nullptr;
}

// Windows are settled in Redis by when they began, which all hosts know alike. What is charged to a
// bucket flows back by itself; units of a log, and of a concurrency, go by the host's name.
bool can_be_sealed(const Bound& bound) noexcept {
  const limit::Policy& policy = bound.policy;
  return policy.algorithm == limit::Algorithm::asked &&
         (policy.alone == limit::Algorithm::fixed_window ||
          policy.alone == limit::Algorithm::sliding_window);
}

uint64_t draw_nonce() noexcept {
  constexpr unsigned kBits = 31;
  return static_cast<uint64_t>(ngx_random()) << kBits ^ static_cast<uint64_t>(ngx_random());
}

// 0: there can be none; also where the charge was admitted without Redis.
uint64_t seal_of(Zone& zone, const Counter& counter, const wire::ReceiptEntry& entry) noexcept {
  const limit::Secret* const key =
      can_be_sealed(counter.own) && entry.state != 0 ? seal_key_of(zone) : nullptr;
  if (key == nullptr) {
    return 0;
  }
  const limit::Secret secret =
      limit::derive_secret(limit::derive_secret(*key, entry.zone), entry.rule);
  const uint64_t words[] = {static_cast<uint64_t>(counter.rule->unit),
                            limit::terms_of(counter.own.policy),
                            entry.table,
                            entry.nonce,
                            entry.place_lo,
                            entry.place_hi,
                            entry.cost,
                            entry.state};
  return limit::siphash13_128(secret, words, sizeof words).lo;
}

limit::Charge mark(const limit::Table& table, std::string_view from, uint64_t number,
                   std::string_view bytes, const limit::Policy& once) noexcept {
  limit::Secret secret = limit::derive_secret(table.secret(), "settled");
  secret = limit::derive_secret(secret, from);
  secret.k0 ^= number;
  return {&once, limit::siphash13_128(secret, bytes)};
}

limit::Charge settled_mark(const limit::Table& table, std::string_view from, uint64_t number,
                           std::string_view bytes) noexcept {
  static const limit::Policy once = limit::make_policy(*limit::make_gcra(1, kMarkNs, 1));
  return mark(table, from, number, bytes, once);
}

// Of a lease that was renewed in a window; for as long as the next one lasts.
limit::Charge renewed_mark(const limit::Table& table, std::string_view from, uint64_t number,
                           const limit::Hash128& place, int64_t window) noexcept {
  static const limit::Policy once =
      limit::make_policy(*limit::make_gcra(1, uint64_t{2 * limit::kLeaseNs}, 1));
  const uint64_t words[] = {place.lo, place.hi, static_cast<uint64_t>(window)};
  char bytes[sizeof words];
  std::memcpy(bytes, words, sizeof words);
  return mark(table, from, number, {bytes, sizeof bytes}, once);
}

void renew_once(limit::Table& table, OpenCharge& charge, std::string_view from,
                uint64_t number) noexcept {
  const limit::Policy& policy = charge.bound->policy;
  const limit::Instant now = instant(table);
  if (policy.lessor != nullptr) {  // which knows each lease by its name
    charge.admitted.state =
        limit::renew_one(table, policy, charge.hash, charge.cost, charge.admitted.state, now);
    return;
  }
  const int64_t window = now.steady_ns / limit::kLeaseNs;
  limit::Charge present = renewed_mark(table, from, number, charge.hash, window);
  limit::Charge before = renewed_mark(table, from, number, charge.hash, window - 1);
  uint64_t held = charge.admitted.state;
  uint64_t moved = charge.cost;
  if (limit::charge_all(table, {&present, 1}, now) == limit::Outcome::refused) {
    moved = 0;  // it is in this window
  } else if (limit::peek_all(table, {&before, 1}, now) == limit::Outcome::refused) {
    limit::Instant earlier = now;
    earlier.steady_ns -= limit::kLeaseNs;
    held = limit::renew(policy.window, 0, 0, 0, earlier);  // a state of the window before
  }
  charge.admitted.state = limit::renew_one(table, policy, charge.hash, moved, held, now);
}

// The latest first, as many as fit; false when there are more.
template <class Visit>
bool each_open(const MainConf& main, const Receipt& receipt, const Visit& visit) noexcept {
  size_t count = 0;
  for (const OpenCharges* each = receipt.latest; each != nullptr; each = each->earlier) {
    Zone* zone = zone_of(main, *each->table);
    for (const OpenCharge& charge : each->charges) {
      if (zone != nullptr && charge.cost != 0) {
        if (count++ == wire::kMaxReceiptEntries) {
          return false;
        }
        wire::ReceiptEntry entry{
            view(zone->name), view(charge.rule().name), table_of(*zone), charge.admitted.generation,
            charge.hash.lo,   charge.hash.hi,           charge.cost,     charge.admitted.state};
        const Counter& counter = *charge.bound->counter;
        entry.nonce = can_be_sealed(counter.own) ? draw_nonce() : 0;
        entry.seal = seal_of(*zone, counter, entry);
        visit(entry);
      }
    }
  }
  return true;
}

void say_not_settled(const wire::ReceiptEntry& entry, ngx_log_t* log) noexcept {
  static time_t said_s = 0;
  if (ngx_time() - said_s >= 60) {
    said_s = ngx_time();
    ngx_str_t zone = str(entry.zone);
    ngx_str_t rule = str(entry.rule);
    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "what another host has charged for a job under limit \"%V\" of zone \"%V\" "
                  "stands: that limit is not in a Redis here, or in another, or has other terms",
                  &rule, &zone);
  }
}

// Of what is sealed, once: whatever penstockd says, and whoever writes to its Redis.
bool is_ours_to_settle(Zone* zone, const Counter* counter, const wire::ReceiptEntry& entry,
                       ngx_log_t* log) noexcept {
  if (entry.seal == 0) {
    return false;
  }
  if (zone == nullptr || counter == nullptr || seal_of(*zone, *counter, entry) != entry.seal) {
    say_not_settled(entry, log);
    return false;
  }
  const std::string_view words{reinterpret_cast<const char*>(&entry.seal), sizeof entry.seal};
  return mark_settled(*zone->table, "seal", 0, words) != limit::Outcome::refused;
}

}  // namespace

uint64_t table_of(const Zone& zone) noexcept {
  return limit::derive_secret(zone.table->secret(), "the receipts' table").k0;
}

struct HeldReceipt {
  Receipt receipt;
  size_t count = 0;
  // Behind it lie `count` OpenCharges, one for each charge, and then as many OpenCharge.
  OpenCharges* together() noexcept { return reinterpret_cast<OpenCharges*>(this + 1); }
  OpenCharge* open(size_t capacity) noexcept {
    return reinterpret_cast<OpenCharge*>(together() + capacity);
  }
};

std::string_view encode_receipt(ngx_pool_t* pool, const MainConf& main,
                                const Receipt& receipt) noexcept {
  size_t size = 1;
  const bool all = each_open(main, receipt, [&](const wire::ReceiptEntry& entry) noexcept {
    size += receipt_entry_size(entry);
  });
  if (!all) {
    ngx_log_error(
        NGX_LOG_ERR, pool->log, 0,
        "more than %uz limits have charged this request; should its job be promised, what "
        "the first of them charged stands",
        wire::kMaxReceiptEntries);
  }
  if (size == 1) {
    return {};
  }
  auto* bytes = static_cast<char*>(ngx_pnalloc(pool, size));
  if (bytes == nullptr) {
    return {};
  }
  char* out = wire::begin_receipt(bytes);
  each_open(main, receipt, [&](const wire::ReceiptEntry& entry) noexcept {
    out = wire::write_receipt_entry(out, entry);
  });
  return {bytes, size};
}

HeldReceipt* decode_receipt(const MainConf& main, std::string_view bytes, Part part,
                            ngx_log_t* log) noexcept {
  size_t capacity = 0;
  wire::ReceiptEntry entry;
  for (wire::ReceiptReader reader(bytes); reader.next(entry);) {
    ++capacity;
  }
  void* memory =
      capacity == 0
          ? nullptr
          : ngx_calloc(sizeof(HeldReceipt) + capacity * (sizeof(OpenCharges) + sizeof(OpenCharge)),
                       log);
  if (memory == nullptr) {
    return nullptr;
  }
  auto* held = new (memory) HeldReceipt;
  held->receipt.main = &main;
  for (wire::ReceiptReader reader(bytes); reader.next(entry);) {
    Zone* zone = find_named(main.zones, entry.zone);
    const Counter* counter = zone == nullptr ? nullptr : counter_named(*zone, entry.rule);
    const bool is_there = counter != nullptr && zone->table.has_value();
    const bool is_own = is_there && entry.table == table_of(*zone);
    const bool sealed = part == Part::kSealed || part == Part::kOthers;
    const bool is_meant = sealed                    ? part == Part::kSealed || !is_own
                          : part == Part::kUnsealed ? is_own && entry.seal == 0
                                                    : is_own;
    if (entry.cost == 0 || !is_meant ||
        (sealed && !is_ours_to_settle(is_there ? zone : nullptr, counter, entry, log))) {
      continue;
    }
    OpenCharge* open = new (held->open(capacity) + held->count)
        OpenCharge{&counter->own,
                   nullptr,
                   {entry.place_lo, entry.place_hi},
                   entry.cost,
                   {entry.state, is_own ? entry.generation : limit::Admitted::kPresent},
                   false};
    held->receipt.latest = new (held->together() + held->count)
        OpenCharges{held->receipt.latest, const_cast<limit::Table*>(&*zone->table), {open, 1}};
    ++held->count;
  }
  if (held->count == 0) {
    ngx_free(memory);
    return nullptr;
  }
  return held;
}

Receipt& receipt_of(HeldReceipt& held) noexcept { return held.receipt; }

void hold_leases(HeldReceipt& held) noexcept {
  held.receipt.has_leases = true;
  held.receipt.since_ns = monotonic_ns();
  ngx_queue_insert_tail(&held.receipt.main->process->leases, &held.receipt.link);
  renew(held.receipt);
}

limit::Outcome mark_settled(limit::Table& table, std::string_view from, uint64_t number,
                            std::string_view bytes) noexcept {
  limit::Charge charge = settled_mark(table, from, number, bytes);
  return limit::charge_all(table, {&charge, 1}, instant(table));
}

bool is_settled(const limit::Table& table, std::string_view from, uint64_t number,
                std::string_view bytes) noexcept {
  limit::Charge charge = settled_mark(table, from, number, bytes);
  return limit::peek_all(table, {&charge, 1}, instant(table)) == limit::Outcome::refused;
}

void renew_once(Receipt& receipt, std::string_view from, uint64_t number) noexcept {
  for (OpenCharges* each = receipt.latest; each != nullptr; each = each->earlier) {
    for (OpenCharge& charge : each->charges) {
      if (charge.cost != 0 && charge.rule().kind == RuleKind::kConcurrency) {
        renew_once(*each->table, charge, from, number);
      }
    }
  }
}

void forget_receipt(HeldReceipt* held) noexcept { ngx_free(held); }

}  // namespace penstock
