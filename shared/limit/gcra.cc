#include "shared/limit/gcra.h"

namespace penstock::limit {

namespace {

constexpr uint64_t kMonthNs = 31ull * 86'400 * 1'000'000'000;
constexpr uint64_t kMaxPerSecond = 10'000'000;
constexpr uint64_t kNsPerSecond = 1'000'000'000;

}  // namespace

Result<GcraPolicy> make_gcra(uint64_t amount, uint64_t period_ns, uint64_t burst) {
  __extension__ using Wide = unsigned __int128;
  if (amount == 0) {
    return Error{"a rate of 0 admits nothing: use an amount of 1 or more, or deny access instead"};
  }
  if (period_ns == 0 || period_ns > kMonthNs) {
    return Error{"a rate's period must be longer than nothing and at most a month (31 days)"};
  }
  if (Wide{amount} * kNsPerSecond > Wide{kMaxPerSecond} * period_ns) {
    return Error{
        "a rate of more than 10000000 a second is beyond what is counted exactly: use " +
        std::to_string(static_cast<uint64_t>(Wide{kMaxPerSecond} * period_ns / kNsPerSecond)) +
        " or less for this period"};
  }
  if (burst > kMaxBurst) {
    return Error{"burst " + std::to_string(burst) + " is too large: use at most " +
                 std::to_string(kMaxBurst)};
  }
  if (burst == 0 && amount > kMaxBurst) {
    return Error{"a rate of " + std::to_string(amount) +
                 " needs a burst of its own: without one all of it could come at once, and at "
                 "most " +
                 std::to_string(kMaxBurst) + " may"};
  }
  GcraPolicy policy;
  policy.burst = burst != 0 ? burst : amount;
  policy.interval = static_cast<uint64_t>((Wide{period_ns} * kTicksPerNs + amount - 1) / amount);
  if (Wide{policy.burst} * policy.interval > kMaxTolerance) {
    return Error{"burst " + std::to_string(policy.burst) +
                 " would take more than four years to come back at this rate: use at most " +
                 std::to_string(kMaxTolerance / policy.interval)};
  }
  policy.tolerance = policy.burst * policy.interval;
  policy.debt = policy.tolerance;
  policy.reciprocal = static_cast<uint64_t>((Wide{1} << 64) / policy.interval);
  return policy;
}

namespace {

uint64_t ticks_up_to_a_day(uint64_t ns) noexcept {
  constexpr uint64_t kDay = 86'400 * kNsPerSecond;
  return (ns < kDay ? ns : kDay) * kTicksPerNs;
}

}  // namespace

void allow_delay(GcraPolicy& policy, uint64_t delay_ns) noexcept {
  policy.delay = ticks_up_to_a_day(delay_ns);
  policy.most_delay = policy.most_delay > policy.delay ? policy.most_delay : policy.delay;
}

void allow_debt(GcraPolicy& policy, uint64_t debt_ns) noexcept {
  const uint64_t debt = ticks_up_to_a_day(debt_ns);
  policy.debt = policy.tolerance > debt ? policy.tolerance : debt;
}

}  // namespace penstock::limit
