// One zone of shared memory for all: offenders | estimates | counters. It is found again by every
// reload whose configuration asks for the same size, and there are few sizes.
#include "ngx_module/request/telemetry.h"

#include <algorithm>
#include <bit>
#include <memory>

#include "shared/metrics/heavy_hitters.h"
#include "shared/metrics/histogram.h"
#include "shared/metrics/registry.h"

namespace penstock {
namespace {

constexpr char kRequestsName[] = "penstock_requests_total";
constexpr char kLimitsName[] = "penstock_limit_requests_total";
constexpr char kCostName[] = "penstock_cost_total";
constexpr char kDecisionName[] = "penstock_decision_seconds";

constexpr size_t kStripes = 32;        // one each for as many processes, but the last for the rest
constexpr size_t kLeastSeries = 1024;  // room for so many, whatever the configuration
constexpr size_t kMostSeries = 8192;   // naming one takes time in proportion
constexpr size_t kMostOffenders = 64;  // told at once

constexpr size_t index_of(Outcome outcome) noexcept { return static_cast<size_t>(outcome); }

// A set of outcomes.
using Outcomes = uint32_t;
constexpr Outcomes one(Outcome outcome) noexcept { return 1u << index_of(outcome); }

// Where what is not counted goes.
uint64_t nowhere;

// One counter, as this process adds to it.
struct Tally {
  uint32_t id = metrics::kNoSeries;
  uint64_t* word = &nowhere;
};

// Of what is counted by outcome, the counter of each; of no series where it cannot come about.
using OutcomeTallies = Tally[kOutcomes];

// One series that the configuration names, and where it is counted.
struct Series {
  ngx_str_t text;
  Tally* tally;
};

// The stripe that this process counts in, and whether it is the only one to do so. Nginx gives no
// two living processes of one master the same slot, those of an earlier cycle included.
unsigned stripe;
bool alone;

void add(const Tally& tally, uint64_t amount = 1) noexcept {
  if (alone) [[likely]] {
    const uint64_t before = __atomic_load_n(tally.word, __ATOMIC_RELAXED);
    __atomic_store_n(tally.word, before + amount, __ATOMIC_RELAXED);
  } else {
    __atomic_fetch_add(tally.word, amount, __ATOMIC_RELAXED);
  }
}

}  // namespace

struct LimitMetrics {
  Outcomes possible = 0;
  OutcomeTallies tallies;
};

struct Telemetry {
  metrics::Registry registry;
  OutcomeTallies* requests = nullptr;  // by Tier::index; the last: of no plan
  size_t tiers = 0;
  metrics::Histogram decisions;
  metrics::HeavyHitters offenders;
  metrics::Estimates estimates;

  Tally costs[kUnits][kCostEvents];

  PoolArray<Series> series;  // all of the above but the histogram's
  size_t room = 0;           // for series
  ngx_shm_zone_t* shm = nullptr;
};

namespace {

// ---- the names of what is counted ----

std::string_view name_of(CostEvent event) noexcept {
  switch (event) {
    case CostEvent::kReserved:
      return "reserved";
    case CostEvent::kSettled:
      return "settled";
    default:
      return "refunded";
  }
}

// What a limit can say.
Outcomes outcomes_of(const Limit& limit) noexcept {
  const Outcomes either = one(Outcome::kPassed) | one(outcome_of(limit.action, limit.dry_run));
  return limit.dry_run ? either : either | one(Outcome::kRejected);
}

// Gives each counter its metrics, and returns what a whole request can come to.
bool note_outcomes(ngx_conf_t* cf, const MainConf& main, Outcomes& all) noexcept {
  for (const Zone* zone : main.zones) {
    for (Counter* counter : zone->counters) {
      counter->metrics = make<LimitMetrics>(cf->pool);
      if (counter->metrics == nullptr) {
        return false;
      }
    }
  }
  all = one(Outcome::kPassed) | one(Outcome::kRejected) | one(Outcome::kBusy);
  for (const Limit* limit : main.limits) {
    const Outcomes outcomes = outcomes_of(*limit);
    all |= outcomes;
    for (const Bound& bound : limit->bounds) {
      bound.counter->metrics->possible |= outcomes;
    }
    for (const Bounds& bounds : limit->tier_bounds) {
      for (const Bound& bound : bounds) {
        bound.counter->metrics->possible |= outcomes;
      }
    }
  }
  return true;
}

// The plan that a rule belongs to; nullptr: none, it stands in a penstock_limit.
const Tier* tier_of(const MainConf& main, const Rule* rule) noexcept {
  for (const Tier* tier : main.tiers) {
    if (std::find(tier->rules.begin(), tier->rules.end(), rule) != tier->rules.end()) {
      return tier;
    }
  }
  return nullptr;
}

// Names need no escaping: is_name() has seen to that.
class Namer {
 public:
  Namer(ngx_conf_t* cf, Telemetry& telemetry) noexcept : cf_(cf), telemetry_(telemetry) {}

  bool name_costs() noexcept {
    for (const Unit unit : {Unit::kTokens, Unit::kGpu}) {
      for (size_t i = 0; i < kCostEvents; ++i) {
        ngx_str_t label = str(label_of(unit));
        ngx_str_t event = str(name_of(static_cast<CostEvent>(i)));
        if (!add(print(cf_->pool, "%s{unit=\"%V\",event=\"%V\"}", kCostName, &label, &event),
                 telemetry_.costs[static_cast<size_t>(unit)][i])) {
          return false;
        }
      }
    }
    return true;
  }

  bool name_requests(const Tier* tier, Outcomes possible, OutcomeTallies& tallies) noexcept {
    ngx_str_t plan = tier == nullptr ? ngx_str_t{} : tier->name;
    ngx_str_t variant = tier == nullptr ? ngx_str_t{} : tier->variant;
    return for_each(possible, [&](Outcome outcome, ngx_str_t label) noexcept {
      return add(print(cf_->pool, "%s{tier=\"%V\",variant=\"%V\",outcome=\"%V\"}", kRequestsName,
                       &plan, &variant, &label),
                 tallies[index_of(outcome)]);
    });
  }

  bool name_limit(const Zone& zone, const Counter& counter, const Tier* tier) noexcept {
    ngx_str_t in = zone.name;
    ngx_str_t name = counter.rule->name;
    ngx_str_t plan = tier == nullptr ? ngx_str_t{} : tier->name;
    ngx_str_t variant = tier == nullptr ? ngx_str_t{} : tier->variant;
    LimitMetrics& metrics = *counter.metrics;
    return for_each(metrics.possible, [&](Outcome outcome, ngx_str_t label) noexcept {
      return add(
          print(cf_->pool, "%s{zone=\"%V\",tier=\"%V\",variant=\"%V\",limit=\"%V\",outcome=\"%V\"}",
                kLimitsName, &in, &plan, &variant, &name, &label),
          metrics.tallies[index_of(outcome)]);
    });
  }

 private:
  template <class Do>
  static bool for_each(Outcomes outcomes, const Do& act) noexcept {
    for (size_t i = 0; i < kOutcomes; ++i) {
      const auto outcome = static_cast<Outcome>(i);
      if ((outcomes & one(outcome)) != 0 && !act(outcome, str(words_of(outcome).label))) {
        return false;
      }
    }
    return true;
  }

  bool add(ngx_str_t text, Tally& tally) noexcept {
    if (text.len > metrics::kMaxSeriesText) {
      ngx_log_error(NGX_LOG_WARN, cf_->log, 0,
                    "%V has %uz bytes and is not counted: use shorter names, at most %uz bytes in "
                    "all",
                    &text, text.len, metrics::kMaxSeriesText);
      return true;
    }
    return text.data != nullptr && telemetry_.series.push(cf_->pool, {text, &tally}) != nullptr;
  }

  ngx_conf_t* cf_;
  Telemetry& telemetry_;
};

// What matters most comes first: it has room for certain.
bool name_all(ngx_conf_t* cf, const MainConf& main, Telemetry& telemetry) noexcept {
  telemetry.tiers = main.tiers.size();
  telemetry.requests = static_cast<OutcomeTallies*>(
      ngx_palloc(cf->pool, (telemetry.tiers + 1) * sizeof(OutcomeTallies)));
  Outcomes all = 0;
  if (telemetry.requests == nullptr || !note_outcomes(cf, main, all)) {
    return false;
  }
  for (size_t i = 0; i <= telemetry.tiers; ++i) {
    std::uninitialized_default_construct_n(telemetry.requests[i], kOutcomes);
  }
  Namer namer(cf, telemetry);
  bool done =
      namer.name_costs() && namer.name_requests(nullptr, all, telemetry.requests[telemetry.tiers]);
  for (const Tier* tier : main.tiers) {
    done = done && namer.name_requests(tier, all, telemetry.requests[tier->index]);
  }
  for (const Zone* zone : main.zones) {
    for (const Counter* counter : zone->counters) {
      done = done && namer.name_limit(*zone, *counter, tier_of(main, counter->rule));
    }
  }
  return done;
}

// ---- shared memory ----

size_t table_bytes(size_t series) noexcept {
  return metrics::HeavyHitters::bytes() + metrics::Estimates::bytes() +
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
  const size_t bytes = table_bytes(telemetry.room);
  if (!exists) {
    pool->data = ngx_slab_alloc(pool, bytes);
  }
  if (pool->data == nullptr) {
    return NGX_ERROR;
  }
  const std::span<std::byte> memory(static_cast<std::byte*>(pool->data), bytes);
  constexpr size_t kEstimatesAt = metrics::HeavyHitters::bytes();
  constexpr size_t kRegistryAt = kEstimatesAt + metrics::Estimates::bytes();
  ngx_log_t* log = shm->shm.log;
  return open(exists, memory.first(kEstimatesAt), log, telemetry.offenders) &&
                 open(exists, memory.subspan(kEstimatesAt, metrics::Estimates::bytes()), log,
                      telemetry.estimates) &&
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

// The id under which a refusal's offender is noted names the limit: it is that of the series of its
// rejections, which tells it in one of its labels, and a reload keeps it.
std::string_view limit_of(const metrics::Registry& registry, uint32_t tag) noexcept {
  constexpr std::string_view kLabel = ",limit=\"";
  std::string_view text = registry.text_of(tag);
  const size_t at = text.find(kLabel);
  if (at == text.npos) {
    return {};
  }
  text.remove_prefix(at + kLabel.size());
  return text.substr(0, text.find('"'));
}

int64_t about_now_ns() noexcept {
  return static_cast<int64_t>(ngx_current_msec) * 1'000'000;  // Nginx reads CLOCK_MONOTONIC too
}

void note_offender(Telemetry& telemetry, uint64_t key, uint32_t tag) noexcept {
  static uint64_t salt = static_cast<uint64_t>(ngx_pid) << 32;
  telemetry.offenders.fade(about_now_ns());
  telemetry.offenders.note(key, tag, ++salt);
}

uint64_t hash_of(std::string_view model) noexcept {
  return limit::siphash13_128(limit::Secret{}, model).lo;
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
  const size_t bytes = table_bytes(telemetry->room);
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
  const auto* main =
      static_cast<MainConf*>(ngx_http_cycle_get_module_main_conf(cycle, ngx_http_penstock_module));
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

void start_counting(const MainConf& main) noexcept {
  const auto slot = static_cast<size_t>(ngx_process_slot);
  alone = slot < kStripes - 1;
  stripe = static_cast<unsigned>(alone ? slot : kStripes - 1);
  for (const Series& series : main.telemetry->series) {
    uint64_t* word = main.telemetry->registry.word(series.tally->id, stripe);
    series.tally->word = word == nullptr ? &nowhere : word;
  }
}

void count_request(const MainConf& main, const Tier* tier, Outcome outcome) noexcept {
  const Telemetry& telemetry = *main.telemetry;
  add(telemetry.requests[tier == nullptr ? telemetry.tiers : tier->index][index_of(outcome)]);
}

void count_limit(const MainConf& main, const Counter& counter, Outcome outcome,
                 uint64_t key) noexcept {
  const Tally& tally = counter.metrics->tallies[index_of(outcome)];
  add(tally);
  if (outcome == Outcome::kRejected) {
    note_offender(*main.telemetry, key, tally.id);
  }
}

void count_passed(std::span<const Judged> judged) noexcept {
  for (const Judged& j : judged) {
    add(j.bound->counter->metrics->tallies[index_of(Outcome::kPassed)]);
  }
}

void count_cost(const MainConf& main, Unit unit, CostEvent event, uint64_t amount) noexcept {
  if (unit != Unit::kRequests) {
    add(main.telemetry->costs[static_cast<size_t>(unit)][static_cast<size_t>(event)], amount);
  }
}

void observe_decision(const MainConf& main, int64_t ns) noexcept {
  main.telemetry->decisions.observe(static_cast<uint64_t>(std::max(ns, int64_t{0})), stripe,
                                    kSampled);
}

Estimate estimate_of(const MainConf& main, std::string_view model) noexcept {
  return main.telemetry->estimates.of(hash_of(model));
}

void learn(const MainConf& main, std::string_view model, uint64_t prompt_bytes,
           uint64_t prompt_tokens, uint64_t completion_tokens, uint64_t gpu_ms) noexcept {
  main.telemetry->estimates.learn(hash_of(model),
                                  {prompt_bytes, prompt_tokens, completion_tokens, gpu_ms});
}

size_t worst_offenders(const MainConf& main, std::span<OffenderRow> rows) noexcept {
  Telemetry& telemetry = *main.telemetry;
  telemetry.offenders.fade(about_now_ns());
  metrics::Offender worst[kMostOffenders];
  const size_t count =
      telemetry.offenders.top(std::span(worst).first(std::min(rows.size(), kMostOffenders)));
  for (size_t i = 0; i < count; ++i) {
    rows[i] = {worst[i].key, limit_of(telemetry.registry, worst[i].tag), worst[i].count};
  }
  return count;
}

void write_counts(const MainConf& main, metrics::Writer& writer) noexcept {
  const Telemetry& telemetry = *main.telemetry;
  const metrics::Registry& registry = telemetry.registry;
  write_counters(writer, registry, kRequestsName,
                 "Requests that have ended, by the caller's plan and what became of them.");
  write_counters(writer, registry, kLimitsName,
                 "What each limit said of the requests it judged. A request that another limit "
                 "refused is not counted here.");
  writer.family(kCostName, metrics::Type::counter,
                "Model tokens and GPU seconds: reserved at admission, settled by what was used, "
                "and refunded of what was reserved.");
  for (const Unit unit : {Unit::kTokens, Unit::kGpu}) {
    for (const Tally& tally : telemetry.costs[static_cast<size_t>(unit)]) {
      const uint32_t id = tally.id;
      const uint64_t sum = registry.sum(id);
      if (!registry.live(id)) {
        continue;
      }
      if (unit == Unit::kGpu) {
        writer.sample(registry.text_of(id),
                      static_cast<double>(sum) / static_cast<double>(scale_of(unit)));
      } else {
        writer.sample(registry.text_of(id), sum);
      }
    }
  }
  writer.family(kDecisionName, metrics::Type::histogram,
                "Time to judge all limits of a request, measured on one in sixteen and weighted "
                "accordingly.");
  telemetry.decisions.write_samples(writer);
}

}  // namespace penstock
