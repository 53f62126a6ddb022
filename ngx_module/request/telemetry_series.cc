#include "ngx_module/request/telemetry_series.h"

#include <algorithm>
#include <memory>

#include "ngx_module/conf/text.h"

namespace penstock {
namespace {

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

std::string_view name_of(ChallengeEvent event) noexcept {
  switch (event) {
    case ChallengeEvent::kIssued:
      return "issued";
    case ChallengeEvent::kPassed:
      return "passed";
    case ChallengeEvent::kFailed:
      return "failed";
    default:
      return "provider_error";
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
    if (limit->action == Action::kChallenge) {
      limit->bounds[0].counter->metrics->challenges = true;
    }
    for (const Bound& bound : limit->verified) {
      bound.counter->metrics->possible |= one(Outcome::kPassed) | one(Outcome::kRejected);
    }
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
    ngx_str_t plan = tier == nullptr ? str("") : tier->name;
    ngx_str_t variant = tier == nullptr || tier->variant.len == 0 ? str("") : tier->variant;
    return for_each(possible, [&](Outcome outcome, ngx_str_t label) noexcept {
      return add(print(cf_->pool, "%s{tier=\"%V\",variant=\"%V\",outcome=\"%V\"}", kRequestsName,
                       &plan, &variant, &label),
                 tallies[index_of(outcome)]);
    });
  }

  bool name_limit(const Zone& zone, const Counter& counter, const Tier* tier) noexcept {
    ngx_str_t in = zone.name;
    ngx_str_t name = counter.rule->name;
    ngx_str_t plan = tier == nullptr ? str("") : tier->name;
    ngx_str_t variant = tier == nullptr || tier->variant.len == 0 ? str("") : tier->variant;
    LimitMetrics& metrics = *counter.metrics;
    return for_each(metrics.possible, [&](Outcome outcome, ngx_str_t label) noexcept {
      return add(
          print(cf_->pool, "%s{zone=\"%V\",tier=\"%V\",variant=\"%V\",limit=\"%V\",outcome=\"%V\"}",
                kLimitsName, &in, &plan, &variant, &name, &label),
          metrics.tallies[index_of(outcome)]);
    });
  }

  bool name_challenges(const Zone& zone, const Counter& counter) noexcept {
    ngx_str_t in = zone.name;
    ngx_str_t name = counter.rule->name;
    for (size_t i = 0; i < kChallengeEvents && counter.metrics->challenges; ++i) {
      ngx_str_t event = str(name_of(static_cast<ChallengeEvent>(i)));
      if (!add(print(cf_->pool, "%s{zone=\"%V\",limit=\"%V\",event=\"%V\"}", kChallengesName, &in,
                     &name, &event),
               counter.metrics->challenged[i])) {
        return false;
      }
    }
    return true;
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

}  // namespace

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
      done = done && namer.name_limit(*zone, *counter, tier_of(main, counter->rule)) &&
             namer.name_challenges(*zone, *counter);
    }
  }
  return done;
}

}  // namespace penstock
