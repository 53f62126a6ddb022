#include "ngx_module/pages/lease_metrics.h"

#include "ngx_module/lease/lessee.h"
#include "ngx_module/pages/series_text.h"
#include "shared/base/clock.h"

namespace penstock {
namespace {

using metrics::Type;
using metrics::Writer;

struct Row {
  std::string_view label, value;  // beside the zone; empty: none
  Fact fact;
};

struct Family {
  std::string_view name, help;
  std::initializer_list<Row> rows;
};

const Family kFamilies[] = {
    {"penstock_lease_charges_total",
     "Charges of shared limits: held, paid from what this host held; waited, asked for in Redis "
     "while the request waited; alone, decided without Redis.",
     {{"how", "held", Fact::kHeld},
      {"how", "waited", Fact::kWaited},
      {"how", "alone", Fact::kAlone}}},
    {"penstock_lease_timeouts_total",
     "Requests that waited for Redis in vain, as long as the zone's timeout.",
     {{{}, {}, Fact::kTimedOut}}},
    {"penstock_lease_trips_total", "Calls of the lease script.", {{{}, {}, Fact::kTrips}}},
    {"penstock_lease_units_total",
     "Units that this host took to hold, and that it gave back unused.",
     {{"event", "leased", Fact::kLeased}, {"event", "returned", Fact::kReturned}}},
    {"penstock_lease_errors_total",
     "Answers of Redis that were errors.",
     {{{}, {}, Fact::kFaults}}},
    {"penstock_lease_disconnects_total",
     "Times that Redis could not be used any more, or not be reached.",
     {{{}, {}, Fact::kLost}}},
};

void write_family(Writer& writer, const MainConf& main, const Family& family) noexcept {
  writer.family(family.name, Type::counter, family.help);
  for (const Zone* zone : main.zones) {
    if (zone->sharing == nullptr) {
      continue;
    }
    for (const Row& row : family.rows) {
      writer.sample(SeriesText(family.name, {{"zone", view(zone->name)}}, {row.label, row.value}),
                    facts_of(*zone->sharing).counts[static_cast<size_t>(row.fact)].load());
    }
  }
}

template <class Get>
void write_gauge(Writer& writer, const MainConf& main, std::string_view name, std::string_view help,
                 const Get& get) noexcept {
  writer.family(name, Type::gauge, help);
  for (const Zone* zone : main.zones) {
    if (zone->sharing != nullptr) {
      writer.sample(SeriesText(name, {{"zone", view(zone->name)}}), uint64_t{get(*zone)});
    }
  }
}

}  // namespace

void write_leases(Writer& writer, const MainConf& main) noexcept {
  if (std::none_of(main.zones.begin(), main.zones.end(),
                   [](const Zone* zone) { return zone->sharing != nullptr; })) {
    return;
  }
  for (const Family& family : kFamilies) {
    write_family(writer, main, family);
  }
  write_gauge(writer, main, "penstock_lease_hosts", "Hosts that share the zone, as last heard.",
              [](const Zone& zone) { return facts_of(*zone.sharing).hosts.load(); });
  write_gauge(writer, main, "penstock_lease_up",
              "Whether the worker that answers has a Redis to share the zone by.",
              [](const Zone& zone) { return uint64_t{static_cast<Lessee*>(zone.lessor)->up(monotonic_ns()) ? 1u : 0u}; });
}

}  // namespace penstock
