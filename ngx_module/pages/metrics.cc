#include "ngx_module/pages/metrics.h"

#include <limits>

#include "ngx_module/admit/status_source.h"
#include "ngx_module/keys/issued_keys.h"
#include "ngx_module/pages/lease_metrics.h"
#include "ngx_module/pages/queue_metrics.h"
#include "ngx_module/pages/series_text.h"
#include "ngx_module/reply/page.h"
#include "ngx_module/reply/reply.h"
#include "ngx_module/request/receipt.h"
#include "ngx_module/request/request.h"
#include "ngx_module/request/telemetry.h"
#include "shared/base/clock.h"
#include "shared/metrics/exposition.h"

namespace penstock {
namespace {

using metrics::Type;
using metrics::Writer;

// Slots read for one page, of all zones together: one or two tenths of a millisecond.
constexpr uint64_t kMostSlots = 1 << 16;
constexpr uint64_t kSlotsAPart = 256;  // a page of memory

// ---- zones ----

struct ZoneRow {
  const Zone* zone;
  limit::TableUsage usage;
};

uint64_t scaled(uint64_t count, uint64_t whole, uint64_t sampled) noexcept {
  return static_cast<uint64_t>(static_cast<double>(count) * static_cast<double>(whole) /
                               static_cast<double>(sampled));
}

// At most `most` slots are read. Keys lie where their hashes put them, so any part is like the
// rest.
limit::TableUsage usage_of(const limit::Table& table, uint64_t most) noexcept {
  const limit::Instant now = instant(table);
  const uint64_t slots = table.slots();
  const uint64_t parts = ngx_max(most / kSlotsAPart, uint64_t{1});
  if (slots <= parts * kSlotsAPart) {
    return table.usage(now);
  }
  limit::TableUsage sum;
  for (uint64_t i = 0; i < parts; ++i) {
    const limit::TableUsage part = table.usage(now, i * (slots / parts), kSlotsAPart);
    sum.live += part.live;
    sum.idle += part.idle;
    sum.pending += part.pending;
  }
  const uint64_t sampled = parts * kSlotsAPart;
  sum = {.idle = scaled(sum.idle, slots, sampled),
         .live = scaled(sum.live, slots, sampled),
         .pending = scaled(sum.pending, slots, sampled)};
  sum.empty = slots - sum.idle - sum.live - sum.pending;
  return sum;
}

// Read once, as the page is written twice.
bool read_zones(ngx_pool_t* pool, const MainConf& main, PoolArray<ZoneRow>& rows) noexcept {
  for (const Zone* zone : main.zones) {
    if (rows.push(pool, {zone, usage_of(*zone->table, kMostSlots / main.zones.size())}) ==
        nullptr) {
      return false;
    }
  }
  return true;
}

void write_slots(Writer& writer, const PoolArray<ZoneRow>& zones) noexcept {
  constexpr std::string_view kName = "penstock_zone_slots";
  writer.family(kName, Type::gauge,
                "Slots of the zone: live holds a limit in use, idle may go to another key. Large "
                "zones are estimated from a part of them.");
  for (const ZoneRow& row : zones) {
    const std::string_view zone = view(row.zone->name);
    const auto sample = [&](std::string_view state, uint64_t slots) noexcept {
      writer.sample(SeriesText(kName, {{"zone", zone}, {"state", state}}), slots);
    };
    sample("live", row.usage.live);
    sample("idle", row.usage.idle);
    sample("pending", row.usage.pending);
    sample("empty", row.usage.empty);
  }
}

template <class Get>
void write_zones(Writer& writer, const PoolArray<ZoneRow>& zones, std::string_view name, Type type,
                 std::string_view help, const Get& get) noexcept {
  writer.family(name, type, help);
  for (const ZoneRow& row : zones) {
    writer.sample(SeriesText(name, {{"zone", view(row.zone->name)}}),
                  static_cast<uint64_t>(get(*row.zone)));
  }
}

void write_keys(Writer& writer, const MainConf& main) noexcept {
  if (main.keys != nullptr) {
    constexpr std::string_view kName = "penstock_keys_unreadable";
    writer.family(kName, Type::gauge,
                  "1: the file of penstock_keys cannot be read, or is wrong; what was read before "
                  "it is in force.");
    writer.sample(kName, uint64_t{main.keys->is_unreadable() ? 1u : 0u});
  }
}

// ---- penstockds ----

constexpr auto kNow = std::memory_order_relaxed;

template <class Get>
void write_queues(Writer& writer, const LocConf& loc, int64_t now_ns, std::string_view name,
                  std::string_view help, const Get& get) noexcept {
  writer.family(name, Type::gauge, help);
  for (const StatusSource* source : loc.status) {
    const wire::StatusPage* page = fresh_page(*source, now_ns);
    if (page == nullptr) {
      continue;
    }
    for (const wire::QueueStatus& queue : page->queues) {
      const std::string_view label(queue.name, strnlen(queue.name, sizeof queue.name));
      if (queue.state.load(std::memory_order_acquire) != 0 && is_name(label)) {
        writer.sample(SeriesText(name, {{"socket", view(source->label)}, {"queue", label}}),
                      get(queue));
      }
    }
  }
}

void write_penstockds(Writer& writer, const LocConf& loc, int64_t now_ns) noexcept {
  constexpr std::string_view kUp = "penstock_up";
  writer.family(kUp, Type::gauge, "Whether the penstockd at this socket gives signs of life.");
  for (const StatusSource* source : loc.status) {
    writer.sample(SeriesText(kUp, {{"socket", view(source->label)}}),
                  uint64_t{fresh_page(*source, now_ns) == nullptr ? 0u : 1u});
  }
  const auto write = [&](std::string_view name, std::string_view help, const auto& get) noexcept {
    write_queues(writer, loc, now_ns, name, help, get);
  };
  write("penstock_queue_length", "Jobs that wait.",
        [](const auto& queue) { return uint64_t{queue.length.load(kNow)}; });
  write("penstock_queue_running", "Jobs on workers.",
        [](const auto& queue) { return uint64_t{queue.running.load(kNow)}; });
  write("penstock_queue_slots", "Jobs that the queue's live workers can run at once.",
        [](const auto& queue) { return uint64_t{queue.slots.load(kNow)}; });
  write("penstock_queue_predicted_wait_seconds",
        "How long a job of the lowest class that came now would wait; +Inf while paused.",
        [](const auto& queue) {
          const uint64_t wait_ms = queue.predicted_wait_ms.load(kNow);
          return wait_ms == wire::kNoPredictedWait ? std::numeric_limits<double>::infinity()
                                                   : static_cast<double>(wait_ms) / 1000;
        });
}

// ---- the page ----

void write_page(Writer& writer, const MainConf& main, const LocConf& loc,
                const PoolArray<ZoneRow>& zones, const PoolArray<QueueCounts>& queues,
                int64_t now_ns) noexcept {
  write_counts(main, writer);
  write_slots(writer, zones);
  write_zones(writer, zones, "penstock_zone_bytes", Type::gauge, "Size of the zone.",
              [](const Zone& zone) { return zone.shm->shm.size; });
  write_zones(writer, zones, "penstock_zone_evictions_total", Type::counter,
              "Idle keys that were given up for others.",
              [](const Zone& zone) { return zone.table->evictions(); });
  write_zones(writer, zones, "penstock_zone_given_away_total", Type::counter,
              "Live keys, nearly unused, that were given up for others.",
              [](const Zone& zone) { return zone.table->given_away(); });
  write_zones(writer, zones, "penstock_zone_full_total", Type::counter,
              "Keys that found no slot, as all were live: their requests were refused with 503.",
              [](const Zone& zone) { return zone.table->full_events(); });
  write_keys(writer, main);
  write_leases(writer, main);
  if (loc.watched != nullptr) {
    write_penstockds(writer, loc, now_ns);
    write_queue_counts(writer, queues);
  }
}

}  // namespace

ngx_int_t show_metrics(ngx_http_request_t* r) noexcept {
  if (const ngx_int_t rc = check_method(r, NGX_HTTP_GET | NGX_HTTP_HEAD, "GET, HEAD");
      rc != NGX_DECLINED) {
    return rc;
  }
  const MainConf& main = *main_conf(r);
  const LocConf& loc = *loc_conf(r);
  const int64_t now_ns = monotonic_ns();
  PoolArray<ZoneRow> zones;
  PoolArray<QueueCounts> queues;
  if (!read_zones(r->pool, main, zones) || !read_queue_counts(r->pool, loc, queues)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  Writer measure({});
  write_page(measure, main, loc, zones, queues, now_ns);
  auto* memory = static_cast<char*>(ngx_pnalloc(r->pool, measure.bound()));
  if (memory == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  Writer writer({memory, measure.bound()});
  write_page(writer, main, loc, zones, queues, now_ns);
  // A reload that names more in this very moment: the next question is answered.
  if (!writer.complete()) {
    return NGX_HTTP_SERVICE_UNAVAILABLE;
  }
  ngx_chain_t* body = chain_of(r, str(writer.text()));
  return body == nullptr ? NGX_HTTP_INTERNAL_SERVER_ERROR
                         : send_page(r, metrics::kContentType, body);
}

char* read_metrics(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  if (cf->args->nelts == 2) {
    loc.watched = upstream_named(cf, 1);
    if (loc.watched == nullptr) {
      return kConfError;
    }
  }
  return set_page(cf, loc, show_metrics);
}

}  // namespace penstock
