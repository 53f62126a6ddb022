#include "shared/metrics/registry.h"

#include <cstring>
#include <string>

#include "tests/unit/metrics/metrics_fixture.h"

namespace penstock::metrics {
namespace {

// Why attach() refuses the memory; empty if it doesn't.
std::string refusal(std::span<std::byte> memory) {
  const auto registry = Registry::attach(memory);
  return registry ? "" : registry.error().message;
}

// A reload whose configuration names these series.
void reload(Registry& registry, std::initializer_list<std::string_view> texts) {
  registry.begin_generation();
  for (const std::string_view text : texts) {
    id_of(registry, text);
  }
}

TEST(RegistryTest, CountsPerSeriesAndSumsOverTheStripes) {
  RegistryMemory memory(10, 3);
  Registry registry = memory.registry();
  const uint32_t a = id_of(registry, "a_total");
  const uint32_t b = id_of(registry, "b_total{x=\"1\"}");
  for (unsigned stripe = 0; stripe < 7; ++stripe) {  // more workers than stripes
    registry.add(a, stripe);
    registry.add(b, stripe, 100);
  }
  EXPECT_EQ(registry.sum(a), 7u);
  EXPECT_EQ(registry.sum(b), 700u);
  EXPECT_EQ(registry.size(), 2u);
  EXPECT_EQ(registry.text_of(b), "b_total{x=\"1\"}");
}

TEST(RegistryTest, AStripesWordIsPartOfTheSumAndOfNoOtherSeries) {
  RegistryMemory memory(10, 3);
  Registry registry = memory.registry();
  const uint32_t a = id_of(registry, "a_total");
  const uint32_t b = id_of(registry, "b_total");
  registry.add(a, 0, 5);
  *registry.word(a, 1) += 7;
  *registry.word(a, 2) += 1;
  EXPECT_EQ(registry.sum(a), 13u);
  EXPECT_EQ(registry.sum(b), 0u);
  registry.add(a, 1);
  EXPECT_EQ(*registry.word(a, 1), 8u);
}

TEST(RegistryTest, WhatIsNoSeriesOrNoStripeHasNoWord) {
  RegistryMemory memory(10, 3);
  Registry registry = memory.registry();
  const uint32_t a = id_of(registry, "a_total");
  EXPECT_EQ(registry.word(a, 3), nullptr);
  EXPECT_EQ(registry.word(10, 0), nullptr);
  EXPECT_EQ(registry.word(kNoSeries, 0), nullptr);
  EXPECT_EQ(Registry().word(0, 0), nullptr);
}

TEST(RegistryTest, AReloadFindsItsCountersAgainByTheirText) {
  RegistryMemory memory(10, 2);
  Registry before = memory.registry();
  const uint32_t a = id_of(before, "a_total");
  before.add(a, 1, 5);
  auto after = Registry::attach(memory.bytes());
  ASSERT_TRUE(after) << after.error().message;
  after->begin_generation();
  EXPECT_EQ(id_of(*after, "b_total"), a + 1);
  EXPECT_EQ(id_of(*after, "a_total"), a);
  EXPECT_EQ(after->sum(a), 5u);
  EXPECT_EQ(after->capacity(), 10u);
  EXPECT_EQ(after->stripes(), 2u);
}

TEST(RegistryTest, NoTwoStripesShareACacheLine) {
  for (const size_t series : {1, 7, 8, 9, 100}) {
    RegistryMemory memory(series, 3);
    Registry registry = memory.registry();
    std::vector<uint32_t> ids;
    for (size_t i = 0; i < series; ++i) {
      ids.push_back(id_of(registry, "s" + std::to_string(i)));
    }
    std::vector<std::set<size_t>> lines(3);
    for (unsigned stripe = 0; stripe < 3; ++stripe) {
      for (const uint32_t id : ids) {
        const std::vector<std::byte> old(memory.bytes().begin(), memory.bytes().end());
        registry.add(id, stripe);
        const auto changed = std::mismatch(old.begin(), old.end(), memory.bytes().begin());
        ASSERT_NE(changed.first, old.end());
        lines[stripe].insert(static_cast<size_t>(changed.first - old.begin()) / kCacheLine);
      }
    }
    for (const size_t line : lines[1]) {
      EXPECT_FALSE(lines[0].contains(line) || lines[2].contains(line)) << series;
    }
  }
}

TEST(RegistryTest, WhatIsNoSeriesCountsNothing) {
  RegistryMemory memory(8, 2);
  Registry registry = memory.registry();
  id_of(registry, "a_total");
  const std::vector<std::byte> before(memory.bytes().begin(), memory.bytes().end());
  registry.add(kNoSeries, 0);
  registry.add(8, 1);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), memory.bytes().begin()));
  EXPECT_EQ(registry.sum(kNoSeries), 0u);
  EXPECT_EQ(registry.text_of(5), "");
  EXPECT_FALSE(registry.live(5));
}

TEST(RegistryTest, AViewOfNothingCountsNothing) {
  Registry none;
  none.begin_generation();
  none.add(0, 3);
  EXPECT_EQ(none.sum(0), 0u);
  EXPECT_EQ(none.size(), 0u);
  EXPECT_FALSE(none.live(0));
  EXPECT_FALSE(none.series("a_total"));
}

TEST(RegistryTest, TextsThatWouldSpoilThePageAreRefused) {
  RegistryMemory memory(8, 1);
  Registry registry = memory.registry();
  EXPECT_FALSE(registry.series(""));
  EXPECT_FALSE(registry.series("a{x=\"\n\"}"));
  EXPECT_FALSE(registry.series("a{x=\"\xff\"}"));
  EXPECT_FALSE(registry.series(std::string(kMaxSeriesText + 1, 'a')));
  const std::string longest(kMaxSeriesText, 'a');
  EXPECT_EQ(registry.text_of(id_of(registry, longest)), longest);
  EXPECT_EQ(registry.size(), 1u);
}

TEST(RegistryTest, AFullRegistryRefusesWithTheReasonAndKeepsCounting) {
  RegistryMemory memory(2, 1);
  Registry registry = memory.registry();
  const uint32_t a = id_of(registry, "a_total");
  id_of(registry, "b_total");
  const auto c = registry.series("c_total");
  ASSERT_FALSE(c);
  EXPECT_NE(c.error().message.find("all 2 places"), std::string::npos);
  EXPECT_NE(c.error().message.find("c_total"), std::string::npos);
  registry.add(a, 0);
  EXPECT_EQ(registry.sum(id_of(registry, "a_total")), 1u);
}

TEST(RegistryTest, ASeriesIsLiveWhileThisOrTheLastConfigurationNamesIt) {
  RegistryMemory memory(4, 1);
  Registry registry = memory.registry();
  const uint32_t a = id_of(registry, "a_total");
  EXPECT_TRUE(registry.live(a));
  reload(registry, {"b_total"});
  EXPECT_TRUE(registry.live(a));
  reload(registry, {"b_total"});
  EXPECT_FALSE(registry.live(a));
  reload(registry, {"a_total"});
  EXPECT_TRUE(registry.live(a));
}

TEST(RegistryTest, ASeriesUnusedForTwoGenerationsGivesItsPlaceUpAndNoSooner) {
  RegistryMemory memory(2, 2);
  Registry registry = memory.registry();
  const uint32_t a = id_of(registry, "a_total");
  const uint32_t b = id_of(registry, "b_total");
  registry.add(a, 0, 3);
  registry.add(a, 1, 4);
  registry.add(b, 1, 9);
  reload(registry, {"b_total"});
  EXPECT_FALSE(registry.series("c_total"));
  reload(registry, {"b_total"});
  EXPECT_FALSE(registry.series("c_total"));
  reload(registry, {"b_total"});
  EXPECT_EQ(id_of(registry, "c_total"), a);
  EXPECT_EQ(registry.text_of(a), "c_total");
  EXPECT_EQ(registry.sum(a), 0u);
  EXPECT_EQ(registry.sum(b), 9u);
  EXPECT_FALSE(registry.series("a_total"));
}

TEST(RegistryTest, PlacesNeverUsedGoBeforePlacesGivenUp) {
  RegistryMemory memory(2, 1);
  Registry registry = memory.registry();
  registry.add(id_of(registry, "a_total"), 0, 3);
  for (int i = 0; i < 5; ++i) {
    reload(registry, {"b_total"});
  }
  EXPECT_EQ(registry.sum(id_of(registry, "a_total")), 3u);
}

TEST(RegistryTest, AMakerKilledWhileItReusedAPlaceLeavesItFree) {
  RegistryMemory memory(1, 1);
  Registry registry = memory.registry();
  const uint32_t a = id_of(registry, "a_total");
  registry.add(a, 0, 3);
  auto* entry = reinterpret_cast<SeriesEntry*>(memory.bytes().data() + sizeof(RegistryHeader));
  entry->length = 0;  // as the first step of the reuse leaves it
  EXPECT_EQ(refusal(memory.bytes()), "");
  EXPECT_FALSE(registry.live(a));
  EXPECT_EQ(id_of(registry, "b_total"), a);
  EXPECT_EQ(registry.sum(a), 0u);
}

TEST(RegistryTest, ADamagedHeaderIsRefusedWithTheReason) {
  const limit::SharedMemory memory(Registry::bytes_for(8, 2));
  const auto has = [&](std::string_view reason) {
    return refusal(memory.bytes()).find(reason) != std::string::npos;
  };
  EXPECT_TRUE(has("no counter registry"));
  const auto damaged = [&](auto damage) {
    EXPECT_TRUE(Registry::create(memory.bytes(), 8, 2));
    EXPECT_EQ(refusal(memory.bytes()), "");
    damage(*reinterpret_cast<RegistryHeader*>(memory.bytes().data()));
  };
  damaged([](RegistryHeader& header) { header.stamp.version = 9; });
  EXPECT_TRUE(has("version 9"));
  damaged([](RegistryHeader& header) { header.stamp.bytes -= 1; });
  EXPECT_TRUE(has("made for"));
  damaged([](RegistryHeader& header) { header.series = 9; });
  EXPECT_TRUE(has("damaged"));
  damaged([](RegistryHeader& header) { header.stripes = uint64_t{1} << 62; });
  EXPECT_TRUE(has("damaged"));
  damaged([](RegistryHeader& header) { header.stripes = 0; });
  EXPECT_TRUE(has("damaged"));
  damaged([](RegistryHeader& header) { header.used = 9; });
  EXPECT_TRUE(has("damaged"));
  damaged([](RegistryHeader& header) {
    header.used = 1;
    reinterpret_cast<SeriesEntry*>(&header + 1)->length = kMaxSeriesText + 1;
  });
  EXPECT_TRUE(has("damaged"));
}

TEST(RegistryTest, MemoryThatDoesNotFitIsRefusedWithTheReason) {
  const limit::SharedMemory memory(Registry::bytes_for(8, 2));
  const auto why = [&](std::span<std::byte> bytes, size_t series, size_t stripes) {
    const auto registry = Registry::create(bytes, series, stripes);
    return registry ? "" : registry.error().message;
  };
  EXPECT_NE(why(memory.bytes(), 9, 2).find("too small"), std::string::npos);
  EXPECT_NE(why(memory.bytes().subspan(8), 1, 1).find("aligned"), std::string::npos);
  EXPECT_NE(why(memory.bytes(), 0, 2).find("not 0 and 2"), std::string::npos);
  EXPECT_NE(why(memory.bytes(), 8, 0).find("not 8 and 0"), std::string::npos);
  EXPECT_NE(why(memory.bytes(), SIZE_MAX, SIZE_MAX).find("65536 series"), std::string::npos);
}

}  // namespace
}  // namespace penstock::metrics
