#include "shared/metrics/exposition.h"

#include <limits>

#include "tests/unit/metrics/metrics_fixture.h"

namespace penstock::metrics {
namespace {

// What `render` writes when it is given exactly what it asked for.
std::string page(const std::function<void(Writer&)>& render) {
  Writer measure({});
  render(measure);
  std::string buffer(measure.bound(), '\0');
  Writer writer(buffer);
  render(writer);
  EXPECT_TRUE(writer.complete());
  return std::string(writer.text());
}

TEST(ExpositionTest, AFamilyIsItsHelpItsTypeAndItsSamples) {
  EXPECT_EQ(page([](Writer& writer) {
              writer.family("penstock_requests_total", Type::counter, "Requests by outcome.");
              writer.sample("penstock_requests_total{outcome=\"admitted\"}", uint64_t{18});
              writer.sample("penstock_requests_total{outcome=\"rejected\"}", UINT64_MAX);
              writer.family("penstock_keys", Type::gauge, "Keys with a live counter.");
              writer.sample("penstock_keys", 0.25);
              writer.family("penstock_wait_seconds", Type::histogram, "Time in the queue.");
            }),
            "# HELP penstock_requests_total Requests by outcome.\n"
            "# TYPE penstock_requests_total counter\n"
            "penstock_requests_total{outcome=\"admitted\"} 18\n"
            "penstock_requests_total{outcome=\"rejected\"} 18446744073709551615\n"
            "# HELP penstock_keys Keys with a live counter.\n"
            "# TYPE penstock_keys gauge\n"
            "penstock_keys 0.25\n"
            "# HELP penstock_wait_seconds Time in the queue.\n"
            "# TYPE penstock_wait_seconds histogram\n");
  EXPECT_EQ(page([](Writer& writer) { writer.family("a", Type::summary, "Sum and count."); }),
            "# HELP a Sum and count.\n# TYPE a summary\n");
}

TEST(ExpositionTest, NumbersAreWrittenAsPrometheusReadsThem) {
  const auto written = [](double value) {
    return page([&](Writer& writer) { writer.sample("a", value); });
  };
  EXPECT_EQ(written(0), "a 0\n");
  EXPECT_EQ(written(3.1e-06), "a 3.1e-06\n");
  EXPECT_EQ(written(-2.2250738585072014e-308), "a -2.2250738585072014e-308\n");
  EXPECT_EQ(written(std::numeric_limits<double>::infinity()), "a +Inf\n");
  EXPECT_EQ(written(-std::numeric_limits<double>::infinity()), "a -Inf\n");
  EXPECT_EQ(written(std::numeric_limits<double>::quiet_NaN()), "a NaN\n");
}

TEST(ExpositionTest, WhatWasMeasuredHoldsCountersThatHaveGrownSince) {
  Writer measure({});
  measure.sample("a_total", uint64_t{0});
  std::string buffer(measure.bound(), '\0');
  Writer writer(buffer);
  writer.sample("a_total", UINT64_MAX);
  EXPECT_TRUE(writer.complete());
}

TEST(ExpositionTest, APageThatDoesNotFitEndsAfterAWholeLine) {
  std::string buffer(10, '\0');
  Writer writer(buffer);
  writer.sample("a", uint64_t{1});
  writer.sample("bb", uint64_t{1'234'567});
  writer.sample("c", uint64_t{1});  // would fit, but the page would lack what is before it
  EXPECT_FALSE(writer.complete());
  EXPECT_EQ(writer.text(), "a 1\n");
}

TEST(ExpositionTest, LabelValuesAreEscaped) {
  EXPECT_EQ(escape_label("plain"), "plain");
  EXPECT_EQ(escape_label("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
  EXPECT_EQ(escape_label("Z\xc3\xbcrich \xff\xc3"), "Z\xc3\xbcrich \xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(escape_label(""), "");
  char longest[3 * kLongestEscape];
  EXPECT_EQ(escape_label("\xff\xff\xff", longest), longest + sizeof longest);
}

TEST(ExpositionTest, AFamilyOfCountersHasItsLiveSeriesAndNoOthers) {
  RegistryMemory memory(8, 2);
  Registry registry = memory.registry();
  const uint32_t gone = id_of(registry, "a_total{x=\"0\"}");
  registry.begin_generation();
  registry.begin_generation();
  const uint32_t two = id_of(registry, "a_total{x=\"2\"}");
  id_of(registry, "a_total_errors_total");
  id_of(registry, "b_total{y=\"a_total\"}");
  const uint32_t one = id_of(registry, "a_total{x=\"1\"}");
  id_of(registry, "a_total");
  registry.add(gone, 0, 5);
  registry.add(two, 0, 20);
  registry.add(two, 1, 2);
  registry.add(one, 1, 11);
  EXPECT_EQ(page([&](Writer& writer) { write_counters(writer, registry, "a_total", "As."); }),
            "# HELP a_total As.\n"
            "# TYPE a_total counter\n"
            "a_total{x=\"2\"} 22\n"
            "a_total{x=\"1\"} 11\n"
            "a_total 0\n");
}

}  // namespace
}  // namespace penstock::metrics
