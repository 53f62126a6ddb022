#include "shared/metrics/heavy_hitters.h"

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/metrics/metrics_fixture.h"

namespace penstock::metrics {
namespace {

constexpr int64_t kMinute = HeavyHitters::kFadePeriodNs;
constexpr int64_t kStart = 5'000'000'000;

class HeavyHittersTest : public ::testing::Test {
 protected:
  void note_often(uint64_t key, uint64_t times, uint32_t tag = 0) {
    for (uint64_t i = 0; i < times; ++i) {
      sketch_.note(key, tag, random_());
    }
  }

  // The two buckets that a key may have. REQUIRES: the sketch is empty; it is again afterwards.
  std::array<HeavyBucket*, 2> places_of(uint64_t key) {
    std::array<HeavyBucket*, 2> places{};
    for (HeavyBucket*& place : places) {
      sketch_.note(key, 0, 0);
      for (HeavyBucket& bucket : buckets_) {
        place = bucket.key == key ? &bucket : place;
      }
      *place = {~key, 1};
    }
    *places[0] = *places[1] = {};
    return places;
  }

  // What the sketch tells of a key; 0 if it isn't among the hundred worst.
  uint64_t count_of(uint64_t key) const {
    Offender top[100];
    const size_t size = sketch_.top(top);
    const auto at = std::find_if(top, top + size, [&](const Offender& o) { return o.key == key; });
    return at == top + size ? 0 : at->count;
  }

  limit::SharedMemory memory_{HeavyHitters::bytes()};
  HeavyHitters sketch_ = *HeavyHitters::create(memory_.bytes());
  std::span<HeavyBucket> buckets_{
      reinterpret_cast<HeavyBucket*>(memory_.bytes().data() + sizeof(HeavyHeader)),
      HeavyHitters::kRows* HeavyHitters::kWidth};
  std::mt19937_64 random_{1};
};

// A stream in which the k-th most frequent of `keys` keys comes in proportion to 1/k.
std::vector<size_t> zipf_ranks(size_t events, size_t keys, std::mt19937_64& random) {
  std::vector<double> up_to(keys);
  double total = 0;
  for (size_t k = 0; k < keys; ++k) {
    up_to[k] = total += 1.0 / static_cast<double>(k + 1);
  }
  std::uniform_real_distribution<double> dice(0, total);
  std::vector<size_t> ranks(events);
  for (size_t& rank : ranks) {
    rank = static_cast<size_t>(std::upper_bound(up_to.begin(), up_to.end(), dice(random)) -
                               up_to.begin());
    rank = std::min(rank, keys - 1);
  }
  return ranks;
}

TEST_F(HeavyHittersTest, TheTenWorstOfAZipfStreamAreFoundWithinATenthOfTheirCounts) {
  const size_t keys = 100'000;
  for (uint64_t seed = 0; seed < 5 / limit::kScale + 1; ++seed) {  // other keys, other collisions
    sketch_ = *HeavyHitters::create(memory_.bytes());
    std::mt19937_64 random(seed);
    std::vector<uint64_t> key_of(keys), truth(keys);
    std::generate(key_of.begin(), key_of.end(), std::ref(random));
    for (const size_t rank : zipf_ranks(1'000'000, keys, random)) {
      ++truth[rank];
      sketch_.note(key_of[rank], static_cast<uint32_t>(rank), random());
    }
    Offender top[10];
    ASSERT_EQ(sketch_.top(top), 10u);
    for (size_t rank = 0; rank < 10; ++rank) {
      const auto at = std::find_if(std::begin(top), std::end(top),
                                   [&](const Offender& o) { return o.key == key_of[rank]; });
      ASSERT_NE(at, std::end(top)) << "rank " << rank << " was not found";
      EXPECT_EQ(at->tag, rank);
      EXPECT_LE(at->count, truth[rank]);
      EXPECT_GE(at->count, truth[rank] - truth[rank] / 10);
    }
    EXPECT_TRUE(std::is_sorted(std::begin(top), std::end(top),
                               [](auto& a, auto& b) { return a.count > b.count; }));
  }
}

TEST_F(HeavyHittersTest, AFloodOfKeysSeenOnceDoesNotPushAnOffenderOut) {
  note_often(42, 300, 7);
  for (int i = 0; i < 2'000'000 / int{limit::kScale}; ++i) {
    sketch_.note(random_(), 1, random_());
  }
  EXPECT_GE(count_of(42), 290u);
  Offender top[1];
  ASSERT_EQ(sketch_.top(top), 1u);
  EXPECT_EQ(top[0].key, 42u);
  EXPECT_EQ(top[0].tag, 7u);
}

// Wherever the flood lands it meets offenders only, so that none is spared for the sake of a
// weaker.
TEST_F(HeavyHittersTest, ASketchFullOfOffendersOutlastsAFlood) {
  for (uint64_t key = 1; HeavyBucket & bucket : buckets_) {
    bucket = {key++, uint64_t{200} << 32};
  }

  for (int i = 0; i < 2'000'000 / int{limit::kScale}; ++i) {
    sketch_.note(random_(), 1, random_());
  }
  for (uint64_t key = 1; const HeavyBucket& bucket : buckets_) {
    EXPECT_EQ(bucket.key, key++);
    EXPECT_GE(bucket.word, uint64_t{199} << 32);
  }
}

TEST_F(HeavyHittersTest, ANewcomerWeakensTheSmallerOfItsTwoBuckets) {
  const auto places = places_of(42);
  for (const int small : {0, 1}) {
    *places[small] = {77, uint64_t{1} << 32};
    *places[1 - small] = {88, uint64_t{3} << 32};
    for (uint64_t salt = 0; places[small]->key == 77 && salt < 100; ++salt) {
      sketch_.note(42, 0, salt);
    }
    EXPECT_EQ(places[small]->key, 42u);
    EXPECT_EQ(places[1 - small]->key, 88u);
    EXPECT_EQ(places[1 - small]->word, uint64_t{3} << 32);
  }
}

TEST_F(HeavyHittersTest, AnOffenderRisesOutOfAFloodThatWasThereFirst) {
  for (int i = 0; i < 200'000; ++i) {
    sketch_.note(random_(), 1, random_());
  }
  for (int i = 0; i < 200'000; ++i) {
    sketch_.note(i % 100 == 0 ? 42 : random_(), 1, random_());  // one in a hundred
  }
  Offender top[1];
  ASSERT_EQ(sketch_.top(top), 1u);
  EXPECT_EQ(top[0].key, 42u);
  EXPECT_GT(top[0].count, 1900u);
}

TEST_F(HeavyHittersTest, AFewKeysAreCountedExactly) {
  for (uint64_t key = 1; key <= 50; ++key) {
    note_often(key * 0x9e3779b97f4a7c15, key, static_cast<uint32_t>(key));
  }
  Offender top[3];
  ASSERT_EQ(sketch_.top(top), 3u);
  EXPECT_EQ(top[0].count, 50u);
  EXPECT_EQ(top[1].count, 49u);
  EXPECT_EQ(top[2].tag, 48u);
}

TEST_F(HeavyHittersTest, TopGivesNoMoreThanThereIsRoomForAndNoMoreThanThereAre) {
  note_often(1, 3);
  note_often(2, 2);
  Offender top[5];
  EXPECT_EQ(sketch_.top(top), 2u);
  EXPECT_EQ(sketch_.top(std::span(top, 1)), 1u);
  EXPECT_EQ(top[0].key, 1u);
  EXPECT_EQ(sketch_.top({}), 0u);
}

TEST_F(HeavyHittersTest, TheSameSaltsGiveTheSameSketch) {
  const limit::SharedMemory other_memory(HeavyHitters::bytes());
  HeavyHitters other = *HeavyHitters::create(other_memory.bytes());
  for (uint64_t i = 0; i < 100'000; ++i) {
    const uint64_t key = random_() % 3000;
    sketch_.note(key, 0, i);
    other.note(key, 0, i);
  }
  EXPECT_TRUE(
      std::equal(memory_.bytes().begin(), memory_.bytes().end(), other_memory.bytes().begin()));
}

TEST_F(HeavyHittersTest, AKeyInBothItsBucketsIsToldOnceWithTheSumOfBoth) {
  const auto places = places_of(42);
  *places[0] = {42, uint64_t{5} << 32};
  *places[1] = {42, uint64_t{1} << 32};
  Offender top[5];
  ASSERT_EQ(sketch_.top(top), 1u);
  EXPECT_EQ(top[0].count, 6u);
}

TEST_F(HeavyHittersTest, CountsFadeByHalfAMinuteAndAreForgottenInTheEnd) {
  note_often(42, 1000, 7);
  sketch_.fade(kStart);
  EXPECT_EQ(count_of(42), 1000u);
  EXPECT_FALSE(sketch_.fade(kStart + kMinute - 1));
  EXPECT_TRUE(sketch_.fade(kStart + kMinute));
  EXPECT_FALSE(sketch_.fade(kStart + kMinute));  // a second worker's timer
  EXPECT_FALSE(sketch_.fade(kStart));            // one with an older clock
  EXPECT_EQ(count_of(42), 500u);
  EXPECT_TRUE(sketch_.fade(kStart + 3 * kMinute + 5));  // nobody came by for two minutes
  EXPECT_EQ(count_of(42), 125u);
  EXPECT_TRUE(sketch_.fade(kStart + 4 * kMinute));
  EXPECT_EQ(count_of(42), 62u);
  EXPECT_TRUE(sketch_.fade(kStart + 1'000'000 * kMinute));
  Offender top[1];
  EXPECT_EQ(sketch_.top(top), 0u);
}

TEST_F(HeavyHittersTest, AnOldOffenderMakesWayForANewOne) {
  note_often(42, 100'000);
  for (int i = 0; i < 10; ++i) {
    sketch_.halve();
  }
  note_often(43, 1000);
  Offender top[2];
  ASSERT_EQ(sketch_.top(top), 2u);
  EXPECT_EQ(top[0].key, 43u);
  EXPECT_EQ(top[1].count, 97u);
}

TEST_F(HeavyHittersTest, ACountStopsAtItsLargestAndKeepsItsTag) {
  HeavyBucket& bucket = *places_of(42)[0];
  bucket = {42, uint64_t{0xfffffffe} << 32 | 7};
  note_often(42, 3, 7);
  EXPECT_EQ(bucket.word, uint64_t{0xffffffff} << 32 | 7);
}

TEST_F(HeavyHittersTest, TheKeyZeroIsCountedToo) {
  note_often(0, 5);
  Offender top[1];
  ASSERT_EQ(sketch_.top(top), 1u);
  EXPECT_EQ(top[0].count, 5u);
}

TEST_F(HeavyHittersTest, AReloadFindsTheSketchAgain) {
  note_often(42, 5);
  auto after = HeavyHitters::attach(memory_.bytes());
  ASSERT_TRUE(after) << after.error().message;
  after->note(42, 0, 0);
  EXPECT_EQ(count_of(42), 6u);
}

TEST_F(HeavyHittersTest, MemoryThatIsNoSketchIsRefusedWithTheReason) {
  const auto why = [](std::span<std::byte> memory) {
    auto sketch = HeavyHitters::attach(memory);
    return sketch ? std::string() : sketch.error().message;
  };
  EXPECT_NE(why(memory_.bytes().first(100)).find("too small"), std::string::npos);
  EXPECT_NE(why(memory_.bytes().subspan(8)).find("aligned"), std::string::npos);
  memory_.bytes()[8] = std::byte{9};
  EXPECT_NE(why(memory_.bytes()).find("version 9"), std::string::npos);
  memory_.bytes()[0] = std::byte{9};
  EXPECT_NE(why(memory_.bytes()).find("there is no sketch"), std::string::npos);
  HeavyHitters none;
  none.note(1, 1, 1);
  none.halve();
  EXPECT_FALSE(none.fade(kStart));
  EXPECT_FALSE(HeavyHitters::create(memory_.bytes().first(64)));
}

}  // namespace
}  // namespace penstock::metrics
