// A latency histogram on top of the registry: how long the limiter's decision takes, from a quarter
// of a microsecond to a millisecond.
//
// Each bucket is a counter of its own and counts only what is in it, so observing is two adds, one
// to a bucket and one to the sum of nanoseconds. The page has them as Prometheus wants them: every
// bucket with all below it, in seconds, and the last, +Inf, is the count.
//
//   penstock_decision_seconds_bucket{le="2.5e-07"} 10
//   penstock_decision_seconds_bucket{le="5e-07"} 14
//   ...
//   penstock_decision_seconds_bucket{le="+Inf"} 15
//   penstock_decision_seconds_sum 3.1e-06
//   penstock_decision_seconds_count 15
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "shared/base/result.h"
#include "shared/metrics/exposition.h"
#include "shared/metrics/registry.h"

namespace penstock::metrics {

// A bucket holds what is at most its bound and more than the one before. A value, copied freely; it
// counts nothing until it comes from create().
class Histogram {
 public:
  static constexpr std::array<uint64_t, 10> kBoundsNs = {
      250, 500, 1'000, 2'000, 5'000, 10'000, 20'000, 50'000, 100'000, 1'000'000};
  static constexpr size_t kBuckets = kBoundsNs.size() + 1;  // and +Inf

  Histogram() { buckets_.fill(kNoSeries); }

  // Asks the registry for the kBuckets + 1 series of this histogram. `name` ends in _seconds;
  // `labels` is empty or e.g. `stage="decide"`, values escaped. An Error as of Registry::series().
  static Result<Histogram> create(Registry registry, std::string_view name,
                                  std::string_view labels = {});

  // Counts `weight` observations of this duration: who measures one request in 64 says 64.
  void observe(uint64_t ns, unsigned stripe, uint64_t weight = 1) noexcept {
    registry_.add(buckets_[bucket_of(ns)], stripe, weight);
    registry_.add(sum_ns_, stripe, ns * weight);
  }

  // The histogram's samples; none if the registry has given it up. The caller writes the family's
  // head, once for all its histograms: writer.family(name, Type::histogram, help).
  void write_samples(Writer& writer) const noexcept;

 private:
  static size_t bucket_of(uint64_t ns) noexcept {
    size_t bucket = 0;
    for (const uint64_t bound : kBoundsNs) {
      bucket += ns > bound ? 1 : 0;
    }
    return bucket;
  }

  Registry registry_;
  std::array<uint32_t, kBuckets> buckets_;
  uint32_t sum_ns_ = kNoSeries;
};

}  // namespace penstock::metrics
