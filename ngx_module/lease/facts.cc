#include "ngx_module/lease/facts.h"

#include <sys/random.h>

#include <algorithm>

#include "ngx_module/conf/text.h"

namespace penstock {
namespace {

ngx_int_t init_facts(ngx_shm_zone_t* shm, void* previous) noexcept {
  auto* pool = reinterpret_cast<ngx_slab_pool_t*>(shm->shm.addr);
  if (ngx_test_config) {
    return NGX_OK;
  }
  if (previous != nullptr || shm->shm.exists) {
    if (pool->data != nullptr && static_cast<Facts*>(pool->data)->magic == Facts::kMagic) {
      return NGX_OK;
    }
    ngx_log_error(NGX_LOG_EMERG, shm->shm.log, 0,
                  "zone \"%V\": its memory is of another version of this module: stop Nginx and "
                  "start it",
                  &shm->shm.name);
    return NGX_ERROR;
  }
  void* memory = ngx_slab_calloc(pool, sizeof(Facts));
  auto* facts = memory == nullptr ? nullptr : new (memory) Facts;
  if (facts == nullptr ||
      getrandom(&facts->incarnation, sizeof facts->incarnation, 0) != sizeof facts->incarnation) {
    return NGX_ERROR;
  }
  pool->data = facts;
  return NGX_OK;
}

}  // namespace

void Waits::observe(uint64_t ns) noexcept {
  const auto* bound = std::lower_bound(kBoundsNs.begin(), kBoundsNs.end(), ns);
  counts[bound - kBoundsNs.begin()].fetch_add(1, std::memory_order_relaxed);
  sum_ns.fetch_add(ns, std::memory_order_relaxed);
}

LimitFacts& Facts::of(const limit::Hash128& name) noexcept {
  for (size_t i = 0; i < kMostLimits; ++i) {
    LimitFacts& place = limits[(name.lo + i) % kMostLimits];
    uint64_t there = 0;
    if (place.name.compare_exchange_strong(there, name.lo) || there == name.lo) {
      return place;
    }
  }
  return limits[kMostLimits];
}

ngx_int_t add_facts(ngx_conf_t* cf, Zone& zone) noexcept {
  ngx_str_t name = print(cf->pool, "%V redis", &zone.name);  // no zone's own name has a space
  if (name.data == nullptr) {
    return NGX_ERROR;
  }
  ngx_shm_zone_t* shm =
      ngx_shared_memory_add(cf, &name, 8 * ngx_pagesize, &ngx_http_penstock_module);
  if (shm == nullptr) {
    return NGX_ERROR;
  }
  shm->init = init_facts;
  shm->data = &zone;
  zone.sharing->memory = shm;
  return NGX_OK;
}

}  // namespace penstock
