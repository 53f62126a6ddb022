#include "shared/metrics/histogram.h"

#include <string>

#include "tests/unit/metrics/metrics_fixture.h"

namespace penstock::metrics {
namespace {

Histogram make_histogram(Registry registry, std::string_view name, std::string_view labels = {}) {
  auto histogram = Histogram::create(registry, name, labels);
  EXPECT_TRUE(histogram) << histogram.error().message;
  return histogram ? *histogram : Histogram();
}

std::string samples(const Histogram& histogram) {
  std::string buffer(4096, '\0');
  Writer writer(buffer);
  histogram.write_samples(writer);
  EXPECT_TRUE(writer.complete());
  return std::string(writer.text());
}

TEST(HistogramTest, BucketsAreCumulativeAndInSecondsOnThePage) {
  RegistryMemory memory(20, 2);
  Histogram histogram = make_histogram(memory.registry(), "t_seconds");
  histogram.observe(0, 0);
  histogram.observe(250, 1);
  histogram.observe(251, 0);
  histogram.observe(1'000, 0, 10);
  histogram.observe(99'999, 1);
  histogram.observe(1'000'001, 1);
  EXPECT_EQ(samples(histogram),
            "t_seconds_bucket{le=\"2.5e-07\"} 2\n"
            "t_seconds_bucket{le=\"5e-07\"} 3\n"
            "t_seconds_bucket{le=\"1e-06\"} 13\n"
            "t_seconds_bucket{le=\"2e-06\"} 13\n"
            "t_seconds_bucket{le=\"5e-06\"} 13\n"
            "t_seconds_bucket{le=\"1e-05\"} 13\n"
            "t_seconds_bucket{le=\"2e-05\"} 13\n"
            "t_seconds_bucket{le=\"5e-05\"} 13\n"
            "t_seconds_bucket{le=\"0.0001\"} 14\n"
            "t_seconds_bucket{le=\"0.001\"} 14\n"
            "t_seconds_bucket{le=\"+Inf\"} 15\n"
            "t_seconds_sum 0.001110501\n"
            "t_seconds_count 15\n");
}

TEST(HistogramTest, EveryBoundIsInItsOwnBucketAndOneMoreInTheNext) {
  RegistryMemory memory(20, 1);
  Histogram histogram = make_histogram(memory.registry(), "t_seconds");
  for (const uint64_t bound : Histogram::kBoundsNs) {
    histogram.observe(bound, 0);
    histogram.observe(bound + 1, 0);
  }
  for (uint32_t bucket = 0; bucket < Histogram::kBuckets; ++bucket) {
    const bool at_an_end = bucket == 0 || bucket == Histogram::kBuckets - 1;
    EXPECT_EQ(memory.registry().sum(bucket), at_an_end ? 1u : 2u) << bucket;
  }
}

TEST(HistogramTest, LabelsComeBeforeTheBound) {
  RegistryMemory memory(20, 1);
  const std::string text =
      samples(make_histogram(memory.registry(), "t_seconds", "stage=\"decide\""));
  EXPECT_TRUE(text.starts_with("t_seconds_bucket{stage=\"decide\",le=\"2.5e-07\"} 0\n"));
  EXPECT_TRUE(
      text.ends_with("t_seconds_sum{stage=\"decide\"} 0\nt_seconds_count{stage=\"decide\"} 0\n"));
}

TEST(HistogramTest, AReloadGoesOnCounting) {
  RegistryMemory memory(20, 1);
  make_histogram(memory.registry(), "t_seconds").observe(300, 0);
  memory.registry().begin_generation();
  Histogram after = make_histogram(*Registry::attach(memory.bytes()), "t_seconds");
  after.observe(300, 0);
  EXPECT_TRUE(samples(after).ends_with("t_seconds_sum 6e-07\nt_seconds_count 2\n"));
}

TEST(HistogramTest, OneThatFoundNoPlaceCountsAndShowsNothing) {
  RegistryMemory memory(11, 1);
  EXPECT_FALSE(Histogram::create(memory.registry(), "t_seconds"));
  Histogram none;
  none.observe(300, 0);
  EXPECT_EQ(samples(none), "");
}

TEST(HistogramTest, AnOldWorkersShowsNothingOfItsOwnOnceTheRegistryGaveItUp) {
  RegistryMemory memory(12, 1);
  Registry registry = memory.registry();
  const Histogram old = make_histogram(registry, "t_seconds");
  for (int reload = 0; reload < 3; ++reload) {
    registry.begin_generation();
  }
  EXPECT_EQ(samples(old), "");
  for (char name = 'a'; name < 'a' + 12; ++name) {  // all its places are others' now
    id_of(registry, std::string(1, name));
  }
  EXPECT_EQ(samples(old).find("t_seconds"), std::string::npos);
}

}  // namespace
}  // namespace penstock::metrics
