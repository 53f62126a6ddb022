#include "shared/limit/table.h"

#include <cstring>

#include "tests/unit/limit/limit_fixture.h"

namespace penstock::limit {
namespace {

TEST(TableTest, CreateThenAttachSeesTheSameCounters) {
  const SharedMemory memory(Table::bytes_for(1000));
  auto first = make_table<Table>(memory);
  const Policy limit = policy(5, kDay);
  ASSERT_EQ(charge_one(first, limit, key(1)), Outcome::admitted);
  auto second = Table::attach(memory.bytes());
  ASSERT_TRUE(second);
  EXPECT_EQ(second->secret(), kSecret);
  EXPECT_EQ(units_charged(*second, limit, key(1)), 1u);
}

TEST(TableTest, HoldsAtLeastTheSlotsAskedFor) {
  for (const size_t slots : {1, 31, 32, 33, 1000, 123'456}) {
    const SharedMemory memory(Table::bytes_for(slots));
    EXPECT_GE(make_table<Table>(memory).slots(), slots);
  }
}

TEST(TableTest, MemoryThatIsNoTableIsRefusedWithTheReason) {
  const SharedMemory memory(Table::bytes_for(100));
  const auto why = [&](std::span<std::byte> bytes) {
    auto table = Table::attach(bytes);
    return table ? std::string() : table.error().message;
  };
  EXPECT_NE(why(memory.bytes()).find("no counter table"), std::string::npos);
  make_table<Table>(memory);
  EXPECT_EQ(why(memory.bytes()), "");
  EXPECT_NE(why(memory.bytes().first(memory.bytes().size() - 256)).find("made for"),
            std::string::npos);
  EXPECT_NE(why(memory.bytes().first(300)).find("too small"), std::string::npos);
  EXPECT_NE(why(memory.bytes().subspan(8)).find("aligned"), std::string::npos);
  memory.bytes()[8] = std::byte{9};
  EXPECT_NE(why(memory.bytes()).find("version 9"), std::string::npos);
}

TEST(TableTest, AFullTableRefusesNewKeysAndForgetsNoLiveOne) {
  const SharedMemory memory(Table::bytes_for(32));  // every key may be in every slot
  auto table = make_table<Table>(memory);
  const Policy limit = policy(3, kDay);
  for (uint64_t i = 0; i < 32; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i), kNow, 2), Outcome::admitted) << i;
  }
  for (uint64_t i = 32; i < 2000; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::table_full);
  }
  EXPECT_EQ(table.full_events(), 1968u);
  for (uint64_t i = 0; i < 32; ++i) {
    EXPECT_EQ(units_charged(table, limit, key(i)), 2u);
    EXPECT_EQ(charge_one(table, limit, key(i)), Outcome::admitted);
    EXPECT_EQ(charge_one(table, limit, key(i)), Outcome::refused);
  }
}

TEST(TableTest, IdleSlotsAreGivenToNewKeys) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const Policy limit = policy(1, kSecond);
  for (uint64_t i = 0; i < 10'000; ++i) {
    const int64_t now = kNow + static_cast<int64_t>(i / 32 * kSecond);
    ASSERT_EQ(charge_one(table, limit, key(i), now), Outcome::admitted) << i;
  }
  EXPECT_EQ(table.full_events(), 0u);
}

TEST(TableTest, ThirtyTwoBytesAKeyAreEnoughForKeysThatAreAllLive) {
  const uint64_t keys = 1'000'000 / kScale;
  const SharedMemory memory(keys * 32);
  auto table = make_table<Table>(memory);
  const Policy limit = policy(2, kDay);
  for (uint64_t i = 0; i < keys; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted) << i;
  }
  EXPECT_EQ(table.usage(at(kNow)).live, keys);
  for (uint64_t i = 0; i < keys; ++i) {
    ASSERT_EQ(units_charged(table, limit, key(i)), 1u) << i;
  }
}

// What became of keys that nobody had seen before.
struct Flood {
  uint64_t admitted = 0, full = 0;
};

Flood flood(Table& table, const Policy& limit, uint64_t keys, int64_t now, int64_t step_ns) {
  Flood flood;
  for (uint64_t i = 0; i < keys; ++i) {
    const Hash128 hash = entry(Hash128{99, 9}, i);  // spread as well as a key's hash
    const Outcome outcome = charge_one(table, limit, hash, now);
    flood.admitted += outcome == Outcome::admitted ? 1 : 0;
    flood.full += outcome == Outcome::table_full ? 1 : 0;
    now += step_ns;
  }
  return flood;
}

// A thousand live keys, 200 of every algorithm, each with some of its units used.
class Residents {
 public:
  explicit Residents(Table& table) : table_(table) {
    for (uint64_t i = 0; i < 1000; ++i) {
      EXPECT_EQ(charge_one(table, limit(i), key(i), kNow, units(i)), Outcome::admitted);
    }
    evictions_ = table.evictions();
  }
  void expect_unchanged() const {
    for (uint64_t i = 0; i < 1000; ++i) {
      ASSERT_EQ(units_used(table_, limit(i), key(i)), units(i)) << i;
    }
  }
  uint64_t evictions_since() const { return table_.evictions() - evictions_; }

 private:
  const Policy& limit(uint64_t i) const { return limits_[i % 5]; }
  static uint64_t units(uint64_t i) { return 1 + i % 7; }

  const Policy limits_[5] = {policy(10, kDay), fixed_window(10, Span::month),
                             sliding_window(10, Span::week), concurrency(10),
                             sliding_log(10, kDay)};
  Table& table_;
  uint64_t evictions_ = 0;
};

TEST(TableTest, TenMillionLiveKeysFillATableAndChangeNoneThatWasThere) {
  const SharedMemory memory(Table::bytes_for(4096));
  auto table = make_table<Table>(memory);
  const Residents residents(table);
  const uint64_t keys = 10'000'000 / kScale;
  const Flood came = flood(table, policy(10, kDay), keys, kNow, 0);
  EXPECT_EQ(came.admitted + came.full, keys);
  EXPECT_EQ(came.full, table.full_events());
  EXPECT_EQ(table.usage(at(kNow)).live, table.slots()) << "not a slot left";
  EXPECT_EQ(residents.evictions_since(), 0u) << "nothing was idle";
  residents.expect_unchanged();
}

TEST(TableTest, AMillionKeysThatGoIdleTakeEachOthersSlotsAndNoOneElses) {
  // Idle again after 100 ns. The whole flood takes less than a tenth of a second.
  const Policy brief = policy(10'000'000, kSecond, 1);
  const SharedMemory memory(Table::bytes_for(16'384));
  auto table = make_table<Table>(memory);
  const Residents residents(table);
  const uint64_t keys = 1'000'000 / kScale;
  const uint64_t empty = table.usage(at(kNow)).empty;
  const Flood came = flood(table, brief, keys, kNow, 50);
  EXPECT_EQ(came.admitted, keys);
  const TableUsage usage = table.usage(at(kNow));
  EXPECT_EQ(residents.evictions_since(), keys - (empty - usage.empty)) << "each but the first ones";
  residents.expect_unchanged();
}

// A plan as the free one of the shipped nginx.conf.
struct Plan {
  const Policy limits[4] = {policy(10, 60 * kSecond, 5), policy(20'000, 60 * kSecond),
                            fixed_window(1000, Span::day), concurrency(2)};

  // A request of that key, which is over at once: its lease is given back.
  Outcome ask(Table& table, uint64_t who, int64_t now) const {
    Charge charges[4];
    for (uint64_t i = 0; i < 4; ++i) {
      charges[i] = {&limits[i], entry(key(who), i), i == 1 ? 40u : 1u};
    }
    const Outcome outcome = charge_all(table, std::span(charges), at(now));
    if (outcome == Outcome::admitted) {
      refund_one(table, limits[3], charges[3].hash, 1, charges[3].decision.next_state, at(now));
    }
    return outcome;
  }
  uint64_t used_today(const Table& table, uint64_t who, int64_t now) const {
    return units_used(table, limits[2], entry(key(who), 2), now);
  }
};

TEST(TableTest, AMillionMadeUpKeysTakeNoKnownCallersPlaceForADay) {
  const SharedMemory memory(size_t{1} << 20);
  auto table = make_table<Table>(memory);
  const Plan plan;
  constexpr uint64_t kKnown = 1000;
  const uint64_t flood = 1'000'000 / kScale;
  int64_t now = kNow;
  uint64_t next = 0;
  for (uint64_t i = 0; i < flood; ++i) {
    now += 1'000'000;  // a thousand made-up keys a second
    plan.ask(table, kKnown + i, now);
    if (i % 100 == 0) {  // each known caller each 100 s
      const uint64_t who = next++ % kKnown;
      ASSERT_EQ(plan.ask(table, who, now), Outcome::admitted) << who << " after " << i;
    }
  }
  EXPECT_GT(table.given_away(), flood / 3) << "windows that were touched once";
  // A window that was given up had used a sixteenth at most: more than that is not forgotten.
  const uint64_t least = 1000 / kUnused;
  for (uint64_t who = 0; who < kKnown; who += 10) {
    int64_t then = now;
    for (uint64_t i = 0; i <= least; ++i) {
      then += 6 * int64_t{kSecond};
      ASSERT_EQ(plan.ask(table, who, then), Outcome::admitted);
    }
    EXPECT_GT(plan.used_today(table, who, then), least);
  }
}

TEST(TableTest, AWellUsedWindowIsForgottenForNobody) {
  const SharedMemory memory(size_t{1} << 18);
  auto table = make_table<Table>(memory);
  const Policy quota = fixed_window(1000, Span::day);
  for (uint64_t who = 0; who < 200; ++who) {
    ASSERT_EQ(charge_one(table, quota, key(who), kNow, 63), Outcome::admitted);
  }
  for (uint64_t i = 0; i < 100'000 / kScale; ++i) {
    ASSERT_EQ(charge_one(table, quota, key(1000 + i)), Outcome::admitted)
        << "another that was touched once goes";
  }
  for (uint64_t who = 0; who < 200; ++who) {
    ASSERT_EQ(units_used(table, quota, key(who)), 63u);
  }
}

TEST(TableTest, WindowsThatMayNotBeGivenUpLeaveRoomForBucketsAndLeases) {
  const SharedMemory memory(size_t{1} << 18);
  auto table = make_table<Table>(memory);
  const Policy quota = fixed_window(10, Span::day);  // one of ten is too much to give away
  uint64_t full = 0;
  for (uint64_t i = 0; i < 100'000; ++i) {
    full += charge_one(table, quota, key(i)) == Outcome::table_full ? 1 : 0;
  }
  ASSERT_GT(full, 0u);
  const Policy bucket = policy(10, kSecond, 2);
  const Policy lease = concurrency(4);
  for (uint64_t who = 0; who < 300; ++who) {
    ASSERT_EQ(charge_one(table, bucket, entry(key(who), 0)), Outcome::admitted);
    ASSERT_EQ(charge_one(table, lease, entry(key(who), 1)), Outcome::admitted);
  }
  EXPECT_EQ(table.given_away(), 0u);
}

TEST(TableTest, KeysAreKeptUpToSixTenthsOfTheSlots) {
  const SharedMemory memory(Table::bytes_for(200'000));
  auto table = make_table<Table>(memory);
  const Policy limit = policy(2, kDay);
  for (uint64_t i = 0; i < table.slots() * 6 / 10; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted) << i;
  }
}

TEST(TableTest, AKeyGivenUpWhileIdleDoesNotGainFromAnOlderClock) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const Policy limit = policy(1, kSecond);
  for (uint64_t i = 0; i < 32; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted);
  }
  const auto later = kNow + static_cast<int64_t>(kSecond);
  for (uint64_t i = 32; i < 64; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i), later), Outcome::admitted);
  }
  ASSERT_EQ(state_of(table, key(0)), 0u);
  // Make room that even the older clock sees, then come back to key 0 with it.
  refund_one(table, limit, key(40), 1, state_of(table, key(40)), at(kNow));
  refund_one(table, limit, key(40), 1, state_of(table, key(40)), at(kNow));
  EXPECT_EQ(charge_one(table, limit, key(0), later - 1), Outcome::refused);
  EXPECT_EQ(table.usage(at(later)).pending, 0u) << "a claim that came to nothing is released";
  EXPECT_EQ(charge_one(table, limit, key(0), later), Outcome::admitted);
}

TEST(TableTest, AWindowGivenUpWhenItWasOverIsNotBegunAgainByAnOlderClock) {
  const auto second = static_cast<int64_t>(kSecond);
  const struct {
    Policy limit;
    int64_t over_after;
  } windows[] = {{fixed_window(1, Span::second), second},
                 {sliding_window(1, Span::second), 2 * second},
                 {concurrency(1), 2 * kLeaseNs}};
  for (const auto& [limit, over_after] : windows) {
    for (const bool settled : {false, true}) {
      const SharedMemory memory(Table::bytes_for(32));
      auto table = make_table<Table>(memory);
      const int64_t over = kNow + over_after;
      for (uint64_t i = 0; i < 28; ++i) {
        ASSERT_EQ(charge_one(table, limit, key(i), kNow), Outcome::admitted);
      }
      const Policy others = policy(1, kDay);
      for (uint64_t i = 30; i < 62; ++i) {
        ASSERT_EQ(charge_one(table, others, key(i), over), Outcome::admitted);
      }
      ASSERT_TRUE(reset_one(table, others, key(30)));  // room, if need be,
      ASSERT_TRUE(reset_one(table, others, key(40)));  // for one
      if (settled) {
        settle_one(table, limit, key(0), 0, 1, 0, at(over - 1));
      } else {
        EXPECT_EQ(charge_one(table, limit, key(0), over - 1), Outcome::admitted);
      }
      EXPECT_EQ(charge_one(table, limit, key(0), over), Outcome::refused)
          << "it was of this window";
    }
  }
}

TEST(TableTest, ALogsUnitGivenUpWhenItWasOverIsNotTakenAgainByAnOlderClock) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const Policy limit = policy(1, kSecond);
  const Policy log = sliding_log(2, kSecond);
  ASSERT_EQ(charge_one(table, log, key(0), kNow, 2), Outcome::admitted);
  const auto over = kNow + static_cast<int64_t>(kSecond);
  for (uint64_t i = 1; i <= 32; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i), over), Outcome::admitted);
  }
  ASSERT_TRUE(reset_one(table, limit, key(1)));
  ASSERT_TRUE(reset_one(table, limit, key(2)));
  EXPECT_EQ(charge_one(table, log, key(0), over - 1), Outcome::refused);
  EXPECT_EQ(table.usage(at(over)).pending, 0u);
  EXPECT_EQ(charge_one(table, log, key(0), over, 2), Outcome::admitted);
}

TEST(TableTest, ASlotLeftPendingByADeadProcessIsTakenByWhoeverNeedsIt) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const Policy limit = policy(1, kDay);
  Ref dead;
  for (uint64_t i = 0; i < 31; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted);
  }
  ASSERT_EQ(table.claim(key(100), Kind::gcra, at(kNow), dead), Table::ClaimResult::mine);
  EXPECT_EQ(table.usage(at(kNow)).pending, 1u);
  EXPECT_EQ(charge_one(table, limit, key(200)), Outcome::admitted);
  EXPECT_FALSE(table.commit(dead, 1)) << "its claim is void";
  EXPECT_EQ(table.usage(at(kNow)).live, 32u);
}

TEST(TableTest, AClaimThatWasTakenOverStaysVoidThoughItsSlotLooksTheSame) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const Policy limit = policy(1, kDay);
  for (uint64_t i = 0; i < 31; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted);
  }
  Ref first;
  Ref second;
  ASSERT_EQ(table.claim(key(100), Kind::gcra, at(kNow), first), Table::ClaimResult::mine);
  ASSERT_EQ(table.claim(key(100), Kind::gcra, at(kNow), second), Table::ClaimResult::mine);
  ASSERT_EQ(first.slot, second.slot);
  EXPECT_FALSE(table.commit(first, 1));
  EXPECT_TRUE(table.commit(second, 1));
}

}  // namespace
}  // namespace penstock::limit
