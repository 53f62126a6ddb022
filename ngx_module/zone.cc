#include "ngx_module/zone.h"

#include <sys/random.h>

#include <span>

namespace penstock {
namespace {

// The table takes all of the memory that Nginx's slab allocator has; that one's header stays, as
// Nginx locks and unlocks it when a worker dies.
ngx_int_t create_table(Zone& zone) noexcept {
  auto* pool = reinterpret_cast<ngx_slab_pool_t*>(zone.shm->shm.addr);
  const size_t size = pool->pfree * ngx_pagesize;
  void* memory = ngx_slab_alloc(pool, size);
  limit::Secret secret;
  if (memory == nullptr || getrandom(&secret, sizeof secret, 0) != sizeof secret) {
    ngx_log_error(NGX_LOG_EMERG, zone.shm->shm.log, 0,
                  "zone \"%V\" is too small for its table; give it 1m or more", &zone.name);
    return NGX_ERROR;
  }
  auto table = limit::Table::create({static_cast<std::byte*>(memory), size}, secret);
  if (!table) {
    ngx_log_error(NGX_LOG_EMERG, zone.shm->shm.log, 0, "zone \"%V\": %s", &zone.name,
                  table.error().message.c_str());
    return NGX_ERROR;
  }
  pool->data = memory;
  zone.table = *table;
  return NGX_OK;
}

ngx_int_t attach_table(Zone& zone) noexcept {
  auto* pool = reinterpret_cast<ngx_slab_pool_t*>(zone.shm->shm.addr);
  auto* memory = static_cast<std::byte*>(pool->data);
  const size_t size = static_cast<size_t>(reinterpret_cast<std::byte*>(pool->end) - memory);
  auto table = limit::Table::attach({memory, size / ngx_pagesize * ngx_pagesize});
  if (!table) {
    ngx_log_error(NGX_LOG_EMERG, zone.shm->shm.log, 0, "zone \"%V\": %s", &zone.name,
                  table.error().message.c_str());
    return NGX_ERROR;
  }
  zone.table = *table;
  return NGX_OK;
}

}  // namespace

ngx_int_t init_zone(ngx_shm_zone_t* shm, void* previous) noexcept {
  auto& zone = *static_cast<Zone*>(shm->data);
  // A reload finds the same memory again. What was there before is read by its own header, not by
  // the old cycle's objects: they may be of another version of the module.
  const bool exists = previous != nullptr || shm->shm.exists;
  if ((exists ? attach_table(zone) : create_table(zone)) != NGX_OK) {
    return NGX_ERROR;
  }
  zone.key_secret = limit::derive_secret(zone.table->secret(), "");
  for (Counter* counter : zone.counters) {
    const limit::Secret salt =
        limit::derive_secret(zone.table->secret(), view(counter->rule->name));
    counter->salt = {salt.k0, salt.k1};
  }
  for (Limit* limit : zone.limits) {
    limit->constant_hash = limit::siphash13_128(zone.key_secret, view(limit->key.constant));
  }
  return NGX_OK;
}

}  // namespace penstock
