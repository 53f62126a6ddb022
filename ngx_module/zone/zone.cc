#include "ngx_module/zone/zone.h"

#include <sys/random.h>

#include <cerrno>
#include <cstring>
#include <span>

#include "ngx_module/conf/sharing.h"
#include "ngx_module/conf/text.h"
#include "ngx_module/zone/store.h"
#include "shared/base/clock.h"
#include "shared/base/large_pages.h"

namespace penstock {
namespace {

constexpr char kAnew[] = "all counters start anew";
constexpr char kTooSmall[] = "it is too small for its table; give it 1m or more";
constexpr char kKept[] = "the counters still in memory are used";

void log_zone(const Zone& zone, ngx_uint_t level, const char* what, const char* then) noexcept {
  ngx_log_error(level, zone.shm->shm.log, 0, "zone \"%V\": %s%s", &zone.name, what, then);
}

// What a table has of a zone's size: the same in Nginx's shared memory, beside its slab allocator's
// own pages, as in a file. Whole pages.
size_t table_bytes(const Zone& zone) noexcept {
  const size_t size = zone.shm->shm.size;
  return (size - size / 128 - 2 * ngx_pagesize) / ngx_pagesize * ngx_pagesize;
}

ngx_int_t create_empty(Zone& zone, std::span<std::byte> memory) noexcept {
  limit::Secret secret;
  if (getrandom(&secret, sizeof secret, 0) != sizeof secret) {
    log_zone(zone, NGX_LOG_EMERG, "the system gives no random numbers", "");
    return NGX_ERROR;
  }
  auto table = limit::Table::create(memory, secret);
  if (!table) {
    log_zone(zone, NGX_LOG_EMERG, table.error().message.c_str(), "");
    return NGX_ERROR;
  }
  zone.table = *table;
  return NGX_OK;
}

// From the snapshot, if there is a good one; empty otherwise.
ngx_int_t fill(Zone& zone, std::span<std::byte> memory, bool from_snapshot) noexcept {
  use_large_pages(memory);
  FoundSnapshot found;
  if (from_snapshot) {
    found = read_snapshot(zone.store->file, memory, zone.table);
  }
  if (found.found != Found::good && create_empty(zone, memory) != NGX_OK) {
    return NGX_ERROR;
  }
  tell_of(*zone.store, found, kAnew);
  return NGX_OK;
}

void tell_of_anonymous_memory(const Zone& zone, const char* why) noexcept {
  log_zone(
      zone, NGX_LOG_WARN, why,
      ": its counters are in memory that ends with Nginx: a kill -9 of all processes will lose "
      "what was counted since the last snapshot");
}

// The zone's memory in tmpfs, if there can be one; with the counters that are in it. `old` is what
// an earlier cycle has.
ngx_int_t open_store(Zone& zone, size_t bytes, const ZoneMemory* old) noexcept {
  const bool upgrade = ngx_inherited != 0 && ngx_is_init_cycle(ngx_cycle);
  auto opened = open_memory(zone.store->memory_name, bytes, upgrade, old);
  if (!opened) {
    log_zone(zone, NGX_LOG_EMERG, opened.error().message.c_str(), "");
    return NGX_ERROR;
  }
  zone.store->memory = opened->memory;
  zone.table = opened->table;
  if (opened->memory == nullptr) {
    tell_of_anonymous_memory(zone, opened->fault.c_str());
  } else if (!opened->fault.empty()) {
    log_zone(zone, NGX_LOG_WARN,
             "what the last run left in memory cannot be used: ", opened->fault.c_str());
  }
  return NGX_OK;
}

std::byte* take_slab(const Zone& zone, size_t bytes) noexcept {
  auto* pool = reinterpret_cast<ngx_slab_pool_t*>(zone.shm->shm.addr);
  return static_cast<std::byte*>(ngx_slab_alloc(pool, bytes));
}

// Under nginx -t: nothing is created, and no memory touched.
ngx_int_t check_size(const Zone& zone) noexcept {
  const size_t bytes = table_bytes(zone);
  if (bytes < limit::Table::bytes_for(1)) {
    log_zone(zone, NGX_LOG_EMERG, kTooSmall, "");
    return NGX_ERROR;
  }
  return NGX_OK;
}

// Nginx has made fresh shared memory for the zone: at a start, or as its size or the module has
// changed.
ngx_int_t start_zone(Zone& zone) noexcept {
  auto* pool = reinterpret_cast<ngx_slab_pool_t*>(zone.shm->shm.addr);
  const size_t bytes = table_bytes(zone);
  auto* note = static_cast<ZoneNote*>(ngx_slab_calloc(pool, sizeof(ZoneNote)));
  const ngx_shm_zone_t* before =
      find_shared(const_cast<const ngx_cycle_t*>(ngx_cycle), view(zone.name));
  const ZoneNote* old = before == nullptr ? nullptr : note_of(*before);
  const bool resized = old != nullptr && old->bytes != bytes;
  const bool durable = zone.store->durable();
  zone.store->file.owner = zone.store->core->user;
  if (note == nullptr ||
      (durable && open_store(zone, bytes, old == nullptr ? nullptr : old->memory) != NGX_OK)) {
    return NGX_ERROR;
  }
  std::byte* memory =
      zone.store->memory != nullptr ? zone.store->memory->at : take_slab(zone, bytes);
  if (memory == nullptr) {
    log_zone(zone, NGX_LOG_EMERG, kTooSmall, "");
    return NGX_ERROR;
  }
  if (zone.store->memory == nullptr && !remap_for_large_pages({memory, bytes})) {
    log_zone(zone, NGX_LOG_EMERG, "the system has no memory for it: ", std::strerror(errno));
    return NGX_ERROR;
  }
  *note = {ZoneNote::kMagic, memory, bytes, zone.store->memory};
  pool->data = note;
  if (!zone.table) {
    return fill(zone, {memory, bytes}, durable && !resized);
  }
  std::optional<limit::Table> none;
  tell_of(*zone.store, read_snapshot(zone.store->file, {}, none), kKept);
  return NGX_OK;
}

// A reload finds the same memory again.
ngx_int_t continue_zone(Zone& zone, const ZoneNote* note) noexcept {
  if (note == nullptr) {
    log_zone(zone, NGX_LOG_EMERG,
             "its memory is of another version of this module: stop Nginx and start it", "");
    return NGX_ERROR;
  }
  auto table = limit::Table::attach({note->table, note->bytes});
  if (!table) {
    log_zone(zone, NGX_LOG_EMERG, table.error().message.c_str(), "");
    return NGX_ERROR;
  }
  ZoneStore& store = *zone.store;
  zone.table = *table;
  store.memory = note->memory;
  if (store.memory != nullptr) {
    ++store.memory->cycles;
  }
  if (!store.durable()) {
    return NGX_OK;
  }
  if (store.memory == nullptr) {
    tell_of_anonymous_memory(zone, "it began without a file, and keeps its memory until a restart");
  }
  const bool named =
      store.memory != nullptr && std::strcmp(store.memory->name, store.memory_name) == 0;
  if (!named && in_use(store.memory_name)) {
    log_zone(zone, NGX_LOG_EMERG, "its new file is in use by another zone or another Nginx", "");
    return NGX_ERROR;
  }
  return NGX_OK;
}

// A name that counts something else from now on counts anew: tokens are no requests.
limit::Hash128 salt_of(const limit::Secret& secret, const Rule& rule) noexcept {
  char text[kMaxNameBytes + 4];
  Text to(text);
  to.raw(view(rule.name));
  if (rule.unit != Unit::kRequests) {
    to.raw("/").raw(symbol_of(rule.unit));
  }
  const limit::Secret salt =
      limit::derive_secret(secret, {text, static_cast<size_t>(to.at() - text)});
  return {salt.k0, salt.k1};
}

void name_bounds(Bounds& bounds) noexcept {
  for (Bound& bound : bounds.all) {
    bound.policy.name = bound.counter->salt;
  }
}

// All hosts that share have the same, and find the same keys by it.
limit::Secret shared_secret(const Sharing& sharing) noexcept {
  constexpr limit::Secret kKind{0x6b636f74736e6570, 0x7372616873};
  return limit::derive_secret(limit::derive_secret(kKind, view(sharing.prefix)),
                              view(sharing.password));
}

void bind_counters(Zone& zone) noexcept {
  const limit::Secret own = zone.table->secret();
  const limit::Secret shared = zone.sharing == nullptr ? own : shared_secret(*zone.sharing);
  zone.key_secret = limit::derive_secret(shared, "");
  ChallengeKeys& keys = zone.challenge_keys;
  keys = {};
  keys.own = keys.all[keys.count++] = challenge::make_keys(
      zone.secret.len > 0 ? view(zone.secret)
                          : std::string_view(reinterpret_cast<const char*>(&own), sizeof own));
  for (Counter* counter : zone.counters) {
    counter->salt = salt_of(counter->shared ? shared : own, *counter->rule);
    counter->own.policy.name = counter->salt;
  }
  for (Limit* limit : zone.limits) {
    name_bounds(limit->bounds);
    name_bounds(limit->verified);
    for (Bounds& bounds : limit->tier_bounds) {
      name_bounds(bounds);
    }
    limit->constant_hash = limit::siphash13_128(zone.key_secret, view(limit->key.constant));
  }
}

void look_at_former_places(const limit::Table& table, Bound& bound) noexcept {
  if (bound.policy.algorithm == limit::Algorithm::sliding_log) {
    bound.policy.places = limit::log_places(table, bound.policy);
  }
}

ngx_int_t begin_terms(ngx_pool_t* pool, Zone& zone) noexcept {
  auto* limits = static_cast<limit::Policy*>(
      ngx_palloc(pool, (zone.counters.size() + 1) * sizeof(limit::Policy)));
  if (limits == nullptr) {
    return NGX_ERROR;
  }
  size_t count = 0;
  for (const Counter* counter : zone.counters) {
    new (limits + count++) limit::Policy(counter->own.policy);
  }
  limit::Table& table = *zone.table;
  limit::begin_terms(table, {limits, count}, table.instant(monotonic_ns(), realtime_ns()));
  for (Counter* counter : zone.counters) {
    look_at_former_places(table, counter->own);
  }
  for (Limit* limit : zone.limits) {
    for (Bound& bound : limit->bounds.all) {
      look_at_former_places(table, bound);
    }
    for (Bound& bound : limit->verified.all) {
      look_at_former_places(table, bound);
    }
    for (Bounds& bounds : limit->tier_bounds) {
      for (Bound& bound : bounds.all) {
        look_at_former_places(table, bound);
      }
    }
  }
  return NGX_OK;
}

}  // namespace

ngx_int_t init_zone(ngx_shm_zone_t* shm, void* previous) noexcept {
  auto& zone = *static_cast<Zone*>(shm->data);
  if (ngx_test_config) {
    return check_size(zone);
  }
  // What was there before is read by its own note, not by the old cycle's objects: they may be of
  // another version of the module.
  const bool exists = previous != nullptr || shm->shm.exists;
  if ((exists ? continue_zone(zone, note_of(*shm)) : start_zone(zone)) != NGX_OK) {
    return NGX_ERROR;
  }
  bind_counters(zone);
  return NGX_OK;
}

ngx_int_t begin_terms(ngx_cycle_t* cycle) noexcept {
  const auto* main =
      static_cast<MainConf*>(ngx_http_cycle_get_module_main_conf(cycle, ngx_http_penstock_module));
  if (main == nullptr || ngx_test_config) {
    return NGX_OK;
  }
  for (Zone* zone : main->zones) {
    if (begin_terms(cycle->pool, *zone) != NGX_OK) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

}  // namespace penstock
