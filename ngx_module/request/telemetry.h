// Telemetry: what all Nginx workers count and learn together, in shared memory that a reload keeps.
//
//   counters     requests by tier and limit, costs, decision times: what penstock_metrics shows
//   offenders    the hashed keys that are refused most: what penstock_console shows
//   minutes      of requests, how many came and were refused of late: likewise
//   estimates    bytes a token, tokens and GPU time a request, by model: what reservations go by
//
// Everything here is a hint or a count: adding to it takes a few nanoseconds, never fails, and
// decides nothing by itself but the size of a reservation, which is settled afterwards.
#pragma once

#include "ngx_module/conf/conf.h"

#include <span>

#include "ngx_module/request/charge_result.h"
#include "ngx_module/request/outcome.h"
#include "shared/metrics/estimates.h"
#include "shared/metrics/exposition.h"

namespace penstock {

// Called in each worker process, before it counts.
void start_counting(const MainConf& main) noexcept;

// A request is counted once, at its end; a limit each time it has judged.
void count_request(const MainConf& main, const Tier* tier, Outcome outcome) noexcept;
// `key` is the hash under which the limit counts the caller; only refusals note it.
void count_limit(const MainConf& main, const Counter& counter, Outcome outcome,
                 uint64_t key) noexcept;
// The same of limits that have all let a request pass.
void count_passed(std::span<const ChargeResult> results) noexcept;
// A challenge by the limit of this counter, and how many of them were answered rightly so far.
void count_challenge(const Counter& counter, ChallengeEvent event) noexcept;
uint64_t challenges_passed(const MainConf& main, const Counter& counter) noexcept;
// Once a request and unit, under however many limits it was charged. `amount` is in the unit's
// counts; requests themselves are no cost.
void count_cost(const MainConf& main, Unit unit, CostEvent event, uint64_t amount) noexcept;

// All that was counted, as Prometheus reads it.
void write_counts(const MainConf& main, metrics::Writer& writer) noexcept;

// A key that is refused often, and by which limit.
struct OffenderRow {
  uint64_t key = 0;  // the hash that count_limit() was given
  std::string_view limit;
  uint64_t refused = 0;  // in the last minutes, the latest counting most
};
// Fills `rows` with the keys that are refused most, worst first, and returns how many there are.
// `limit` is valid while this request is.
size_t worst_offenders(const MainConf& main, std::span<OffenderRow> rows) noexcept;

// Requests of the last ten minutes, or since the first if that is later.
struct RecentRequests {
  uint64_t seconds = 0;
  uint64_t all = 0;
  uint64_t rejected = 0;  // by limits, challenges included
  uint64_t busy = 0;
};
RecentRequests recent_requests(const MainConf& main) noexcept;

// One decision in kSampled is measured.
constexpr unsigned kSampled = 16;
void observe_decision(const MainConf& main, int64_t ns) noexcept;

// What is known of a model. Before anything was learned, these are usual values.
using metrics::Estimate;
Estimate estimate_of(const MainConf& main, std::string_view model) noexcept;
// One finished request: what it was and what it used. Zeros teach nothing.
void learn(const MainConf& main, std::string_view model, uint64_t prompt_bytes,
           uint64_t prompt_tokens, uint64_t completion_tokens, uint64_t gpu_ms) noexcept;

}  // namespace penstock
