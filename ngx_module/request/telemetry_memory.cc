#include "ngx_module/request/telemetry_memory.h"

#include <algorithm>
#include <bit>

#include "ngx_module/request/telemetry_series.h"

namespace penstock {
namespace {

constexpr size_t kLeastSeries = 1024;  // room for so many, whatever the configuration
constexpr size_t kMostSeries = 8192;   // naming one takes time in proportion

size_t bytes_for(size_t series) noexcept {
  return metrics::HeavyHitters::bytes() + metrics::Estimates::bytes() + metrics::Minutes::bytes() +
         metrics::Registry::bytes_for(series, kStripes);
}

// Makes what is in the memory, or finds it there.
template <class T, class... Shape>
bool open(bool exists, std::span<std::byte> memory, ngx_log_t* log, T& out,
          Shape... shape) noexcept {
  auto opened = exists ? T::attach(memory) : T::create(memory, shape...);
  if (!opened) {
    ngx_log_error(NGX_LOG_EMERG, log, 0, "penstock: %s", opened.error().message.c_str());
    return false;
  }
  out = *opened;
  return true;
}

ngx_int_t init_telemetry(ngx_shm_zone_t* shm, void* previous) noexcept {
  auto& telemetry = *static_cast<Telemetry*>(shm->data);
  auto* pool = reinterpret_cast<ngx_slab_pool_t*>(shm->shm.addr);
  const bool exists = previous != nullptr || shm->shm.exists != 0;
  const size_t bytes = bytes_for(telemetry.room);
  if (!exists) {
    pool->data = ngx_slab_alloc(pool, bytes);
  }
  if (pool->data == nullptr) {
    return NGX_ERROR;
  }
  const std::span<std::byte> memory(static_cast<std::byte*>(pool->data), bytes);
  constexpr size_t kEstimatesAt = metrics::HeavyHitters::bytes();
  constexpr size_t kMinutesAt = kEstimatesAt + metrics::Estimates::bytes();
  constexpr size_t kRegistryAt = kMinutesAt + metrics::Minutes::bytes();
  ngx_log_t* log = shm->shm.log;
  return open(exists, memory.first(kEstimatesAt), log, telemetry.offenders) &&
                 open(exists, memory.subspan(kEstimatesAt, metrics::Estimates::bytes()), log,
                      telemetry.estimates) &&
                 open(exists, memory.subspan(kMinutesAt, metrics::Minutes::bytes()), log,
                      telemetry.minutes) &&
                 open(exists, memory.subspan(kRegistryAt), log, telemetry.registry, telemetry.room,
                      kStripes)
             ? NGX_OK
             : NGX_ERROR;
}

// Room for the series of two configurations, as a reload may change all names. Always a power of
// two, so that a small change finds the same memory.
size_t room_for(size_t series) noexcept {
  return std::min(std::bit_ceil(std::max(2 * series, kLeastSeries)), kMostSeries);
}

}  // namespace

ngx_int_t add_telemetry(ngx_conf_t* cf) noexcept {
  MainConf& main = *main_conf(cf);
  auto* telemetry = main.telemetry = make<Telemetry>(cf->pool);
  if (telemetry == nullptr || !name_all(cf, main, *telemetry)) {
    return NGX_ERROR;
  }
  if (main.limits.empty() && main.passes.empty()) {
    return NGX_OK;  // nothing is ever counted
  }
  const size_t series = telemetry->series.size() + metrics::Histogram::kBuckets + 1;
  if (series > kMostSeries) {
    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "these limits and tiers have %uz series of metrics, and there is room for %uz: "
                  "the rest is not counted; use fewer limits, tiers or zones",
                  series, kMostSeries);
  }
  telemetry->room = room_for(series);
  // What Nginx's slab allocator takes for itself is below a hundredth.
  const size_t bytes = bytes_for(telemetry->room);
  ngx_str_t name = ngx_string("penstock_telemetry");
  telemetry->shm = ngx_shared_memory_add(cf, &name, bytes + bytes / 64 + 8 * ngx_pagesize,
                                         &ngx_http_penstock_module);
  if (telemetry->shm == nullptr) {
    return NGX_ERROR;
  }
  telemetry->shm->data = telemetry;
  telemetry->shm->init = init_telemetry;
  return NGX_OK;
}

ngx_int_t begin_counting(ngx_cycle_t* cycle) noexcept {
  const MainConf* main = main_conf(cycle);
  if (main == nullptr || main->telemetry->shm == nullptr) {
    return NGX_OK;
  }
  Telemetry& telemetry = *main->telemetry;
  telemetry.registry.begin_generation();
  if (auto decisions = metrics::Histogram::create(telemetry.registry, kDecisionName); decisions) {
    telemetry.decisions = *decisions;
  }
  size_t uncounted = 0;
  for (const Series& series : telemetry.series) {
    const auto id = telemetry.registry.series(view(series.text));
    series.tally->id = id ? *id : metrics::kNoSeries;
    uncounted += id ? 0 : 1;
  }
  if (uncounted != 0) {
    ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                  "%uz of %uz series of metrics have no room beside those of the configurations "
                  "before, and are not counted until the reload after next",
                  uncounted, telemetry.series.size());
  }
  return NGX_OK;
}

}  // namespace penstock
