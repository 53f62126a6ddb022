#include "shared/limit/lease.h"

#include <algorithm>
#include <cmath>

namespace penstock::limit {

namespace {

// Of a bucket whose interval or burst was changed.
void fit(GcraPolicy& gcra) noexcept {
  gcra.burst = std::min(gcra.burst, kMaxTolerance / gcra.interval);
  gcra.tolerance = gcra.burst * gcra.interval;
  gcra.debt = std::max(gcra.debt, gcra.tolerance);
  gcra.reciprocal = static_cast<uint64_t>((static_cast<__uint128_t>(1) << 64) / gcra.interval);
}

}  // namespace

void make_shared(Policy& policy, Lessor& lessor) noexcept {
  policy.lessor = &lessor;
  policy.alone = policy.algorithm;
  if (policy.algorithm != Algorithm::gcra) {
    policy.length_ns = policy.algorithm == Algorithm::concurrency ? 2 * kLeaseNs : policy.length_ns;
    policy.algorithm = Algorithm::asked;
    return;
  }
  policy.algorithm = Algorithm::leased;
  policy.gcra.interval = shared_interval(policy.gcra);
  fit(policy.gcra);
  policy.limit = policy.gcra.burst;
  policy.mark = Mark(Kind::gcra, policy.gcra.tolerance);
}

Policy share_of(const Policy& policy, uint64_t cost) noexcept {
  const uint64_t hosts = policy.lessor->hosts;
  Policy share = policy;
  share.algorithm = policy.alone;
  share.lessor = nullptr;
  share.limit = std::max({policy.limit / hosts, cost, uint64_t{1}});
  share.window.limit = share.limit;
  if (share.algorithm == Algorithm::gcra) {
    share.gcra.burst = share.limit;
    share.gcra.interval = std::min(policy.gcra.interval * hosts, kMaxTolerance / share.limit);
    fit(share.gcra);
  }
  return share;
}

uint64_t batch_of(const Policy& policy, double rate, uint64_t hosts, int64_t trip_ns) noexcept {
  constexpr double kLeastRate = 20;        // units a second
  constexpr double kLeastBucketNs = 20e6;  // a bucket's worth of time
  constexpr double kMostBetweenNs = 10e6;  // renewals of a busy key
  const double bucket_ns = static_cast<double>(policy.gcra.tolerance) / kTicksPerNs;
  const uint64_t share = policy.gcra.burst / (2 * hosts);
  if (share == 0 || bucket_ns < kLeastBucketNs || rate < kLeastRate) {
    return 0;
  }
  const double between_ns =
      std::max(2.0 * static_cast<double>(trip_ns), std::min(kMostBetweenNs, bucket_ns / 4));
  const double used = std::ceil(rate * 2 * between_ns / 1e9);
  return std::min({used < 1e9 ? static_cast<uint64_t>(used) : kMostHeld, share, kMostHeld});
}

}  // namespace penstock::limit
