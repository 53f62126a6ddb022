#include "shared/limit/table.h"

#include <cstring>

#include "tests/unit/limit/limit_fixture.h"

namespace penstock::limit {
namespace {

TEST(TableTest, CreateThenAttachSeesTheSameCounters) {
  const SharedMemory memory(Table::bytes_for(1000));
  auto first = make_table<Table>(memory);
  const GcraPolicy limit = policy(5, kDay);
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
  const GcraPolicy limit = policy(3, kDay);
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
  const GcraPolicy limit = policy(1, kSecond);
  for (uint64_t i = 0; i < 10'000; ++i) {
    const int64_t now = kNow + static_cast<int64_t>(i / 32 * kSecond);
    ASSERT_EQ(charge_one(table, limit, key(i), now), Outcome::admitted) << i;
  }
  EXPECT_EQ(table.full_events(), 0u);
}

TEST(TableTest, AThousandLiveKeysOutlastMillionsOfIdleOnes) {
  const SharedMemory memory(Table::bytes_for(4096));
  auto table = make_table<Table>(memory);
  const GcraPolicy live = policy(100, kDay);
  const GcraPolicy brief = policy(10'000'000, kSecond, 1);  // idle again after 100 ns
  for (uint64_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(charge_one(table, live, key(i), kNow, 1 + i % 100), Outcome::admitted);
  }
  int64_t now = kNow;
  for (uint64_t i = 0; i < 3'000'000 / kScale; ++i) {
    ASSERT_EQ(charge_one(table, brief, key(1'000'000 + i), now), Outcome::admitted);
    now += 10;
  }
  EXPECT_EQ(table.full_events(), 0u);
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(units_charged(table, live, key(i)), 1 + i % 100);
  }
}

TEST(TableTest, ThirtyTwoBytesAKeyAreEnoughForKeysThatAreAllLive) {
  const uint64_t keys = 1'000'000 / kScale;
  const SharedMemory memory(keys * 32);
  auto table = make_table<Table>(memory);
  const GcraPolicy limit = policy(2, kDay);
  for (uint64_t i = 0; i < keys; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted) << i;
  }
  EXPECT_EQ(table.usage(kNow).live, keys);
  for (uint64_t i = 0; i < keys; ++i) {
    ASSERT_EQ(units_charged(table, limit, key(i)), 1u) << i;
  }
}

TEST(TableTest, KeysAreKeptUpToSixTenthsOfTheSlots) {
  const SharedMemory memory(Table::bytes_for(200'000));
  auto table = make_table<Table>(memory);
  const GcraPolicy limit = policy(2, kDay);
  for (uint64_t i = 0; i < table.slots() * 6 / 10; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted) << i;
  }
}

TEST(TableTest, AKeyGivenUpWhileIdleDoesNotGainFromAnOlderClock) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const GcraPolicy limit = policy(1, kSecond);
  for (uint64_t i = 0; i < 32; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted);
  }
  const auto later = kNow + static_cast<int64_t>(kSecond);
  for (uint64_t i = 32; i < 64; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i), later), Outcome::admitted);
  }
  ASSERT_EQ(state_of(table, key(0)), 0u);
  // Make room that even the older clock sees, then come back to key 0 with it.
  refund_one(table, limit, key(40), 1, state_of(table, key(40)), kNow);
  refund_one(table, limit, key(40), 1, state_of(table, key(40)), kNow);
  EXPECT_EQ(charge_one(table, limit, key(0), later - 1), Outcome::refused);
  EXPECT_EQ(charge_one(table, limit, key(0), later), Outcome::admitted);
}

TEST(TableTest, ASlotLeftPendingByADeadProcessIsTakenByWhoeverNeedsIt) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const GcraPolicy limit = policy(1, kDay);
  Ref dead;
  for (uint64_t i = 0; i < 31; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted);
  }
  ASSERT_EQ(table.claim(key(100), Kind::gcra, kNow, dead), Table::Claim::mine);
  EXPECT_EQ(table.usage(kNow).pending, 1u);
  EXPECT_EQ(charge_one(table, limit, key(200)), Outcome::admitted);
  EXPECT_FALSE(table.commit(dead, 1)) << "its claim is void";
  EXPECT_EQ(table.usage(kNow).live, 32u);
}

TEST(TableTest, AClaimThatWasTakenOverStaysVoidThoughItsSlotLooksTheSame) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const GcraPolicy limit = policy(1, kDay);
  for (uint64_t i = 0; i < 31; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted);
  }
  Ref first;
  Ref second;
  ASSERT_EQ(table.claim(key(100), Kind::gcra, kNow, first), Table::Claim::mine);
  ASSERT_EQ(table.claim(key(100), Kind::gcra, kNow, second), Table::Claim::mine);
  ASSERT_EQ(first.slot, second.slot);
  EXPECT_FALSE(table.commit(first, 1));
  EXPECT_TRUE(table.commit(second, 1));
}

}  // namespace
}  // namespace penstock::limit
