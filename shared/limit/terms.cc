#include "shared/limit/terms.h"

#include <algorithm>

namespace penstock::limit {
namespace {

__extension__ using Wide = unsigned __int128;

// A word of terms: a sliding log's has the highest bit, its length (ns) and its limit; of others
// three bits are the algorithm, the rest is a bucket's interval (ticks) or a window's span.
constexpr uint64_t kLog = uint64_t{1} << 63;
constexpr unsigned kLimitBits = 10;
constexpr uint64_t kLimitMask = (uint64_t{1} << kLimitBits) - 1;
static_assert(kMaxLog <= kLimitMask);
constexpr unsigned kAlgorithmShift = 60;
constexpr uint64_t kValueMask = (uint64_t{1} << kAlgorithmShift) - 1;

constexpr uint64_t kMostAhead = 2 * kMaxTolerance;  // ticks

Algorithm algorithm_of(uint64_t terms) noexcept {
  return (terms & kLog) != 0 ? Algorithm::sliding_log
                             : static_cast<Algorithm>(terms >> kAlgorithmShift);
}

uint64_t value_of(uint64_t terms) noexcept { return terms & kValueMask; }
int64_t length_of_log(uint64_t terms) noexcept {
  return static_cast<int64_t>((terms & ~kLog) >> kLimitBits);
}

uint64_t interval_of(uint64_t terms) noexcept { return std::max<uint64_t>(value_of(terms), 1); }

WindowPolicy window_of(uint64_t terms) noexcept {
  return {algorithm_of(terms) == Algorithm::fixed_window ? WindowKind::fixed : WindowKind::sliding,
          static_cast<Span>(value_of(terms) & 7), 0};
}

bool is_window(Algorithm algorithm) noexcept {
  return algorithm == Algorithm::fixed_window || algorithm == Algorithm::sliding_window;
}

uint64_t ahead(uint64_t ticks, Wide by) noexcept {
  return ticks + static_cast<uint64_t>(std::min<Wide>(by, kMostAhead));
}

uint64_t units_used(uint64_t terms, uint64_t state, const Instant& at) noexcept {
  if (is_window(algorithm_of(terms))) {
    return used(window_of(terms), state, at);
  }
  const uint64_t ticks = gcra_ticks(at.steady_ns);
  return state > ticks ? (state - ticks - 1) / interval_of(terms) + 1 : 0;
}

uint64_t state_of_units(uint64_t terms, uint64_t units, const Instant& at) noexcept {
  if (units == 0) {
    return 0;
  }
  return is_window(algorithm_of(terms))
             ? overdraw(window_of(terms), 0, units, at)
             : ahead(gcra_ticks(at.steady_ns), Wide{units} * interval_of(terms));
}

}  // namespace

namespace {

// What is shared is kept as if it were not.
Algorithm kept_as(const Policy& policy) noexcept {
  return policy.lessor != nullptr ? policy.alone : policy.algorithm;
}

}  // namespace

uint64_t terms_of(const Policy& policy) noexcept {
  const uint64_t algorithm = static_cast<uint64_t>(kept_as(policy)) << kAlgorithmShift;
  switch (kept_as(policy)) {
    case Algorithm::gcra:
      return algorithm | policy.gcra.interval;
    case Algorithm::sliding_log:
      return kLog | static_cast<uint64_t>(policy.length_ns) << kLimitBits | policy.limit;
    default:
      return algorithm | static_cast<uint64_t>(policy.window.span);
  }
}

uint64_t log_limit_of(uint64_t terms) noexcept {
  return (terms & kLog) != 0 ? std::min(terms & kLimitMask, kMaxLog) : 0;
}

Kind kind_of(uint64_t terms) noexcept {
  switch (algorithm_of(terms)) {
    case Algorithm::fixed_window:
      return Kind::fixed;
    case Algorithm::sliding_window:
    case Algorithm::concurrency:
      return Kind::paired;
    default:
      return Kind::gcra;
  }
}

uint64_t carry_over(uint64_t from, uint64_t to, uint64_t state, const Instant& began) noexcept {
  const Algorithm before = algorithm_of(from);
  const Algorithm after = algorithm_of(to);
  const uint64_t ticks = gcra_ticks(began.steady_ns);
  if (before == Algorithm::gcra && after == Algorithm::gcra) {
    if (state <= ticks) {
      return state;
    }
    const Wide scaled = Wide{state - ticks} * interval_of(to);
    return ahead(ticks, (scaled + interval_of(from) - 1) / interval_of(from));
  }
  if (before == Algorithm::sliding_log && after == Algorithm::sliding_log) {
    const uint64_t longer = gcra_ticks(length_of_log(to));
    const uint64_t shorter = gcra_ticks(length_of_log(from));
    return state <= ticks || state + longer <= shorter ? 0 : state + longer - shorter;
  }
  const bool counts = (is_window(before) || before == Algorithm::gcra) &&
                      (is_window(after) || after == Algorithm::gcra);
  return counts ? state_of_units(to, units_used(from, state, began), began) : 0;
}

Policy with_terms(Policy policy, uint64_t terms) noexcept {
  if (terms == 0 || algorithm_of(terms) != kept_as(policy)) {
    return policy;
  }
  switch (kept_as(policy)) {
    case Algorithm::gcra: {
      GcraPolicy& gcra = policy.gcra;
      const uint64_t before = gcra.interval;
      gcra.interval = interval_of(terms);
      gcra.burst = std::min(gcra.burst, kMaxTolerance / gcra.interval);
      gcra.tolerance = gcra.burst * gcra.interval;
      gcra.debt = static_cast<uint64_t>(
          std::min<Wide>(Wide{gcra.debt} * gcra.interval / before, kMaxTolerance));
      gcra.reciprocal = static_cast<uint64_t>((Wide{1} << 64) / gcra.interval);
      policy.limit = gcra.burst;
      policy.mark = Mark(Kind::gcra, gcra.tolerance);
      break;
    }
    case Algorithm::sliding_log:
      policy.length_ns = length_of_log(terms);
      policy.places = std::max(policy.places, log_limit_of(terms));
      break;
    default:
      policy.window.span = static_cast<Span>(value_of(terms) & 7);
      break;
  }
  return policy;
}

int64_t horizon_ns(const Policy& policy) noexcept {
  switch (kept_as(policy)) {
    case Algorithm::gcra:
      return gcra_ns_up(policy.gcra.farthest());
    case Algorithm::sliding_log:
      return policy.length_ns;
    case Algorithm::concurrency:
      return 0;
    default:
      return 2 * span_ns(policy.window.span);
  }
}

}  // namespace penstock::limit
