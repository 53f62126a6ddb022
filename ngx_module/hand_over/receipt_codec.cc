#include "ngx_module/hand_over/receipt_codec.h"

#include <algorithm>
#include <cstring>

#include "shared/wire/receipt.h"

namespace penstock {
namespace {

static_assert(kMaxCharges <= wire::kMaxReceiptEntries &&
              kMaxNameBytes <= wire::kMaxReceiptNameBytes);

const Zone* zone_of(const MainConf& main, const limit::Table& table) noexcept {
  for (const Zone* zone : main.zones) {
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

// Tells one table's places from another's: its secret, by a one-way function.
uint64_t table_of(const Zone& zone) noexcept {
  return limit::derive_secret(zone.table->secret(), "the receipts' table").k0;
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
    const Zone* zone = zone_of(main, *each->table);
    for (const OpenCharge& charge : each->charges) {
      if (zone != nullptr && charge.cost != 0) {
        if (count++ == wire::kMaxReceiptEntries) {
          return false;
        }
        visit(wire::ReceiptEntry{view(zone->name), view(charge.rule().name), table_of(*zone),
                                 charge.admitted.generation, charge.hash.lo, charge.hash.hi,
                                 charge.cost, charge.admitted.state});
      }
    }
  }
  return true;
}

}  // namespace

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

HeldReceipt* decode_receipt(const MainConf& main, std::string_view bytes, ngx_log_t* log) noexcept {
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
    const Zone* zone = find_named(main.zones, entry.zone);
    const Counter* counter = zone == nullptr ? nullptr : counter_named(*zone, entry.rule);
    if (counter == nullptr || !zone->table.has_value() || entry.cost == 0 ||
        entry.table != table_of(*zone)) {
      continue;
    }
    OpenCharge* open =
        new (held->open(capacity) + held->count) OpenCharge{&counter->own,
                                                            nullptr,
                                                            {entry.place_lo, entry.place_hi},
                                                            entry.cost,
                                                            {entry.state, entry.generation},
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
