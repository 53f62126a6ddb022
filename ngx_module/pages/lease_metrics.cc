#include "ngx_module/pages/lease_metrics.h"

#include <charconv>
#include <utility>

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
    {"penstock_lease_needless_waits_total",
     "Requests that waited for Redis though the host held enough, or knew that there was too "
     "little: none, unless this version is wrong.",
     {{{}, {}, Fact::kNeedless}}},
    {"penstock_lease_trips_total", "Calls of Redis's scripts.", {{{}, {}, Fact::kTrips}}},
    {"penstock_lease_errors_total",
     "Answers of Redis that were errors.",
     {{{}, {}, Fact::kFaults}}},
    {"penstock_lease_disconnects_total",
     "Times that Redis could not be used any more, or not be reached.",
     {{{}, {}, Fact::kLost}}},
};

// Act(zone, facts) of each zone that is shared.
template <class Act>
void for_each_shared(const MainConf& main, const Act& act) noexcept {
  for (const Zone* zone : main.zones) {
    if (zone->sharing != nullptr) {
      act(*zone, facts_of(*zone->sharing));
    }
  }
}

void write_family(Writer& writer, const MainConf& main, const Family& family) noexcept {
  writer.family(family.name, Type::counter, family.help);
  for_each_shared(main, [&](const Zone& zone, const Facts& facts) noexcept {
    for (const Row& row : family.rows) {
      writer.sample(SeriesText(family.name, {{"zone", view(zone.name)}}, {row.label, row.value}),
                    facts.counts[static_cast<size_t>(row.fact)].load());
    }
  });
}

struct UnitRow {
  std::string_view event;
  Units units;
};

void write_units(Writer& writer, const MainConf& main, std::string_view name, std::string_view help,
                 std::initializer_list<UnitRow> rows) noexcept {
  writer.family(name, Type::counter, help);
  for_each_shared(main, [&](const Zone& zone, Facts& facts) noexcept {
    const auto write = [&](std::string_view limit, const LimitFacts& counted) noexcept {
      for (const UnitRow& row : rows) {
        writer.sample(
            SeriesText(name, {{"zone", view(zone.name)}, {"limit", limit}}, {"event", row.event}),
            counted.counted(row.units));
      }
    };
    bool others = false;  // more limits than there are places, over all reloads
    for (const Counter* counter : zone.counters) {
      if (counter->shared) {
        const LimitFacts& counted = facts.of(counter->salt);
        counted.name.load() == 0 ? void(others = true) : write(view(counter->rule->name), counted);
      }
    }
    if (others) {
      write("", facts.limits[Facts::kMostLimits]);
    }
  });
}

void write_waits(Writer& writer, const MainConf& main) noexcept {
  constexpr std::string_view kBucket = "penstock_lease_wait_seconds_bucket";
  constexpr double kNsPerSecond = 1e9;
  writer.family("penstock_lease_wait_seconds", Type::histogram,
                "How long requests waited for Redis, each time that they did.");
  for_each_shared(main, [&](const Zone& zone, const Facts& facts) noexcept {
    const std::string_view name = view(zone.name);
    uint64_t sum = 0;
    for (size_t i = 0; i < Waits::kBoundsNs.size(); ++i) {
      char bound[32];
      char* const end = std::to_chars(bound, bound + sizeof bound,
                                      static_cast<double>(Waits::kBoundsNs[i]) / kNsPerSecond)
                            .ptr;
      sum += facts.waits.counts[i].load();
      writer.sample(
          SeriesText(kBucket, {{"zone", name}}, {"le", {bound, static_cast<size_t>(end - bound)}}),
          sum);
    }
    sum += facts.waits.counts[Waits::kBoundsNs.size()].load();
    writer.sample(SeriesText(kBucket, {{"zone", name}}, {"le", "+Inf"}), sum);
    writer.sample(SeriesText("penstock_lease_wait_seconds_sum", {{"zone", name}}),
                  static_cast<double>(facts.waits.sum_ns.load()) / kNsPerSecond);
    writer.sample(SeriesText("penstock_lease_wait_seconds_count", {{"zone", name}}), sum);
  });
}

void write_breakers(Writer& writer, const MainConf& main) noexcept {
  constexpr std::string_view kName = "penstock_lease_workers";
  writer.family(kName, Type::gauge,
                "Nginx workers by their breaker: closed, Redis is asked; open, they go without.");
  for_each_shared(main, [&](const Zone& zone, const Facts& facts) noexcept {
    for (const auto& [state, label] :
         {std::pair(Breaker::kClosed, "closed"), std::pair(Breaker::kOpen, "open")}) {
      writer.sample(SeriesText(kName, {{"zone", view(zone.name)}, {"breaker", label}}),
                    static_cast<uint64_t>(
                        std::count(std::begin(facts.breakers), std::end(facts.breakers), state)));
    }
  });
}

template <class Get>
void write_gauge(Writer& writer, const MainConf& main, std::string_view name, std::string_view help,
                 const Get& get) noexcept {
  writer.family(name, Type::gauge, help);
  for_each_shared(main, [&](const Zone& zone, const Facts& facts) noexcept {
    writer.sample(SeriesText(name, {{"zone", view(zone.name)}}),
                  static_cast<uint64_t>(get(zone, facts)));
  });
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
  write_waits(writer, main);
  write_units(writer, main, "penstock_lease_units_total",
              "Units that this host took to hold: of these, used, as Redis was told, and given "
              "back; and of all hosts, those whose lease this host found to have ended.",
              {{"leased", Units::kLeased},
               {"used", Units::kUsed},
               {"returned", Units::kReturned},
               {"lapsed", Units::kLapsed}});
  write_units(writer, main, "penstock_lease_misjudged_units_total",
              "What deciding without Redis has cost, as counted when Redis was back: over, units "
              "admitted that there was no room for; under, units refused that there was room for.",
              {{"over", Units::kOver}, {"under", Units::kUnder}});
  write_breakers(writer, main);
  write_gauge(writer, main, "penstock_lease_hosts", "Hosts that share the zone, as last heard.",
              [](const Zone&, const Facts& facts) { return facts.hosts.load(); });
  write_gauge(writer, main, "penstock_lease_up",
              "Whether the worker that answers has a Redis to share the zone by.",
              [](const Zone& zone, const Facts&) {
                return static_cast<Lessee*>(zone.lessor)->up(monotonic_ns()) ? 1 : 0;
              });
}

}  // namespace penstock
