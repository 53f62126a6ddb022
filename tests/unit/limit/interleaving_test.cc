// Two and three requests of one key, every interleaving in which one runs at a step of another.
//
// The table's sync points let a test run a second request, from start to end, in the middle of the
// first: as if the first process had been stopped there. A third may run in the middle of the
// second.

#include "tests/unit/limit/script.h"

namespace penstock::limit {
namespace {

// A table of 32 slots, all of which are candidates for every key: slot i becomes idle at
// idle_from[i].
class InterleavingTest : public testing::Test {
 protected:
  static constexpr uint64_t kHot = 777;

  // Fills the table with keys that go idle one after another, 1 ns apart.
  void fill() {
    table_ = make_table<TestTable>(memory_);
    for (uint64_t i = 0; i < 32; ++i) {
      const Policy brief = policy(1, 1000 + i, 1);
      ASSERT_EQ(charge_one(table_, brief, key(i)), Outcome::admitted);
    }
  }

  uint64_t slots_of_hot() const {
    const uint64_t hash = key(kHot).hi >> 19;
    const auto* slots = reinterpret_cast<const Slot*>(memory_.bytes().data() + sizeof(TableHeader));
    uint64_t count = 0;
    for (uint64_t i = 0; i < table_.slots(); ++i) {
      count += slots[i].key >> 19 == hash && (slots[i].key & 7) == 1 ? 1 : 0;
    }
    return count;
  }

  // Every pair of stops, for requests that come at nows[depth].
  void all_interleavings(const std::vector<int64_t>& nows, const std::function<void()>& prepare) {
    const Policy limit = policy(1, kDay);
    for (unsigned first = 0; first < 12; ++first) {
      for (unsigned second = 0; second < 12; ++second) {
        prepare();
        unsigned admitted = 0;
        Script script;
        script.stops = {first, second};
        script.request = [&](size_t depth) {
          admitted += charge_one(table_, limit, key(kHot), nows[depth]) == Outcome::admitted;
        };
        script.run();
        interruptions_ += script.interrupted;
        EXPECT_EQ(admitted, 1u) << "stopped at steps " << first << ", " << second;
        EXPECT_EQ(slots_of_hot(), 1u) << "stopped at steps " << first << ", " << second;
        EXPECT_EQ(table_.usage(at(nows[0])).pending, 0u);
      }
    }
  }

  SharedMemory memory_{TestTable::bytes_for(32)};
  TestTable table_ = make_table<TestTable>(memory_);
  unsigned interruptions_ = 0;
};

TEST_F(InterleavingTest, InsertersThatSeeDifferentFreeSlotsMakeOneSlot) {
  // Clocks that differ make them see different slots free, and other lines the emptier.
  const std::vector<std::vector<int64_t>> clocks = {{1000, 1031, 1015}, {1031, 1000, 1010},
                                                    {1002, 1003, 1031}, {1031, 1030, 1000},
                                                    {1005, 1020, 1005}, {1031, 1031, 1031}};
  for (const auto& offsets : clocks) {
    std::vector<int64_t> nows;
    nows.reserve(offsets.size());
    for (const int64_t offset : offsets) {
      nows.push_back(kNow + offset);
    }
    all_interleavings(nows, [this] { fill(); });
  }
  EXPECT_GT(interruptions_, 300u);
}

TEST_F(InterleavingTest, InsertersIntoAnEmptyTableMakeOneSlot) {
  all_interleavings({kNow, kNow, kNow}, [this] { table_ = make_table<TestTable>(memory_); });
  EXPECT_GT(interruptions_, 50u);
}

TEST_F(InterleavingTest, ASlotThatGoesIdleWhileBeingChargedIsNotLostToAnother) {
  // The key is there, idle, and the table otherwise full: the second request takes its slot.
  const Policy brief = policy(1, kSecond, 1);
  const Policy limit = policy(5, kDay);
  for (unsigned stop = 0; stop < 12; ++stop) {
    table_ = make_table<TestTable>(memory_);
    ASSERT_EQ(charge_one(table_, brief, key(kHot), kNow), Outcome::admitted);
    for (uint64_t i = 0; i < 31; ++i) {
      ASSERT_EQ(charge_one(table_, limit, key(i), kNow), Outcome::admitted);
    }
    const int64_t now = kNow + int64_t{kSecond};
    Outcome hot{};
    Outcome other{};
    Script script;
    script.stops = {stop};
    script.request = [&](size_t depth) {
      (depth == 0 ? hot : other) =
          charge_one(table_, limit, depth == 0 ? key(kHot) : key(999), now);
    };
    script.run();
    if (script.interrupted == 0) {
      break;
    }
    // Who came first has the slot, the other found the table full.
    EXPECT_NE(hot == Outcome::admitted, other == Outcome::admitted) << stop;
    EXPECT_EQ(table_.usage(at(now)).live, 32u);
    for (uint64_t i = 0; i < 31; ++i) {
      EXPECT_EQ(units_charged(table_, limit, key(i)), 1u);
    }
  }
}

TEST_F(InterleavingTest, ALostRaceOnTheLastLimitGivesBackTheOthers) {
  const Policy roomy = policy(100, kDay);
  const Policy tight = policy(1, kDay);
  for (unsigned stop = 0; stop < 40; ++stop) {
    table_ = make_table<TestTable>(memory_);
    std::vector<Outcome> outcomes(2);
    Script script;
    script.stops = {stop};
    script.request = [&](size_t depth) {
      Charge charges[] = {{&roomy, key(1), 3}, {&roomy, key(2), 2}, {&tight, key(3)}};
      outcomes[depth] = charge_all(table_, std::span(charges), at(kNow));
    };
    script.run();
    const bool both = script.interrupted != 0;
    EXPECT_EQ((outcomes[0] == Outcome::admitted) + (both && outcomes[1] == Outcome::admitted), 1);
    EXPECT_EQ(units_charged(table_, roomy, key(1)), 3u) << stop;
    EXPECT_EQ(units_charged(table_, roomy, key(2)), 2u) << stop;
    EXPECT_EQ(units_charged(table_, tight, key(3)), 1u) << stop;
  }
}

}  // namespace
}  // namespace penstock::limit
