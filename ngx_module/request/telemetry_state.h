// What telemetry is made of, for its own three files: telemetry_series names what is counted,
// telemetry_memory keeps it in shared memory, telemetry counts and tells.
#pragma once

#include "ngx_module/request/outcome.h"
#include "shared/metrics/estimates.h"
#include "shared/metrics/heavy_hitters.h"
#include "shared/metrics/histogram.h"
#include "shared/metrics/minutes.h"
#include "shared/metrics/registry.h"

namespace penstock {

inline constexpr char kRequestsName[] = "penstock_requests_total";
inline constexpr char kLimitsName[] = "penstock_limit_requests_total";
inline constexpr char kChallengesName[] = "penstock_challenges_total";
inline constexpr char kCostName[] = "penstock_cost_total";
inline constexpr char kDecisionName[] = "penstock_decision_seconds";

// One each for as many processes, but the last for the rest.
constexpr size_t kStripes = 32;

constexpr size_t index_of(Outcome outcome) noexcept { return static_cast<size_t>(outcome); }

// A set of outcomes.
using Outcomes = uint32_t;
constexpr Outcomes one(Outcome outcome) noexcept { return 1u << index_of(outcome); }

// Where what is not counted goes.
inline uint64_t nowhere;

// One counter, as this process adds to it.
struct Tally {
  uint32_t id = metrics::kNoSeries;
  uint64_t* word = &nowhere;
};

// The counter of each outcome. An outcome that cannot come about has a counter without a series.
using OutcomeTallies = Tally[kOutcomes];

// One series that the configuration names, and where it is counted.
struct Series {
  ngx_str_t text;
  Tally* tally;
};

struct LimitMetrics {
  Outcomes possible = 0;
  OutcomeTallies tallies;
  bool challenges = false;
  Tally challenged[kChallengeEvents];
};

struct Telemetry {
  metrics::Registry registry;
  OutcomeTallies* requests = nullptr;  // by Tier::index; the last: of no plan
  size_t tiers = 0;
  metrics::Histogram decisions;
  metrics::HeavyHitters offenders;
  metrics::Estimates estimates;
  metrics::Minutes minutes;  // of requests: all, those that limits refused, those refused as busy

  Tally costs[kUnits][kCostEvents];

  PoolArray<Series> series;  // all of the above but the histogram's
  size_t room = 0;           // for series
  ngx_shm_zone_t* shm = nullptr;
};

}  // namespace penstock
