#include "shared/limit/charge.h"

#include "tests/unit/limit/limit_fixture.h"

namespace penstock::limit {
namespace {

class ChargeTest : public testing::Test {
 protected:
  SharedMemory memory_{Table::bytes_for(1000)};
  Table table_ = make_table<Table>(memory_);
};

TEST_F(ChargeTest, AllOfFiveLimitsAreChargedOrNone) {
  const GcraPolicy limits[5] = {policy(5, kDay), policy(4, kDay), policy(3, kDay), policy(9, kDay),
                                policy(8, kDay)};
  std::vector<Charge> charges;
  for (uint64_t i = 0; i < 5; ++i) {
    charges.push_back({&limits[i], key(i), 1});
  }
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(charge_all(table_, std::span(charges), kNow), Outcome::admitted);
    EXPECT_EQ(charges[2].decision.remaining, 2u - i);
  }
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(charge_all(table_, std::span(charges), kNow), Outcome::refused);
  }
  for (uint64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(units_charged(table_, limits[i], key(i)), 3u);
    EXPECT_EQ(charges[i].decision.admit, i != 2);
    EXPECT_EQ(charges[i].decision.remaining, limits[i].burst - 3) << "what is left uncharged";
  }
}

TEST_F(ChargeTest, RetryAfterIsTheLargestOverTheLimitsThatWereExceeded) {
  const GcraPolicy second = policy(1, kSecond);
  const GcraPolicy minute = policy(1, 60 * kSecond);
  const GcraPolicy day = policy(100, kDay);
  Charge charges[] = {{&second, key(1)}, {&minute, key(2)}, {&day, key(3)}};
  ASSERT_EQ(charge_all(table_, std::span(charges), kNow), Outcome::admitted);
  EXPECT_EQ(retry_after_ns(charges), 0);
  ASSERT_EQ(charge_all(table_, std::span(charges), kNow), Outcome::refused);
  EXPECT_EQ(retry_after_ns(charges), 60'000'000'000);
  EXPECT_EQ(charge_all(table_, std::span(charges), kNow + 59'999'999'999), Outcome::refused);
  EXPECT_EQ(charge_all(table_, std::span(charges), kNow + 60'000'000'000), Outcome::admitted);
}

TEST_F(ChargeTest, ARefusalTakesNoSlotForANewKey) {
  const GcraPolicy limit = policy(1, kDay);
  ASSERT_EQ(charge_one(table_, limit, key(1)), Outcome::admitted);
  Charge charges[] = {{&limit, key(2)}, {&limit, key(1)}};
  ASSERT_EQ(charge_all(table_, std::span(charges), kNow), Outcome::refused);
  EXPECT_EQ(table_.usage(kNow).live, 1u);
  EXPECT_EQ(table_.usage(kNow).idle, 0u);
}

TEST_F(ChargeTest, ACostOverTheBurstSaysSo) {
  const GcraPolicy small = policy(2, kDay);
  const GcraPolicy large = policy(100, kDay);
  Charge charges[] = {{&large, key(1), 5}, {&small, key(2), 3}};
  EXPECT_EQ(charge_all(table_, std::span(charges), kNow), Outcome::never_admissible);
  EXPECT_EQ(retry_after_ns(charges), kNever);
  EXPECT_TRUE(charges[0].decision.admit);
  EXPECT_EQ(table_.usage(kNow).live, 0u);
}

TEST_F(ChargeTest, TheSameKeyTwiceIsChargedTwiceOrNotAtAll) {
  const GcraPolicy limit = policy(3, kDay);
  Charge charges[] = {{&limit, key(1)}, {&limit, key(1)}};
  EXPECT_EQ(charge_all(table_, std::span(charges), kNow), Outcome::admitted);
  EXPECT_EQ(charge_all(table_, std::span(charges), kNow), Outcome::refused);
  EXPECT_EQ(units_charged(table_, limit, key(1)), 2u);
}

TEST_F(ChargeTest, PeekSaysWhatWouldBeAndChargesNothing) {
  const GcraPolicy limit = policy(2, kDay);
  Charge charge{&limit, key(1), 2};
  EXPECT_EQ(peek_all(table_, std::span(&charge, 1), kNow), Outcome::admitted);
  EXPECT_EQ(charge.decision.remaining, 0u);
  EXPECT_EQ(table_.usage(kNow).live, 0u);
  EXPECT_EQ(charge_all(table_, std::span(&charge, 1), kNow), Outcome::admitted);
  EXPECT_EQ(peek_all(table_, std::span(&charge, 1), kNow), Outcome::refused);
}

TEST_F(ChargeTest, RefundAllPutsBackWhatAnEarlierStageCharged) {
  const GcraPolicy limit = policy(3, kDay);
  Charge charges[] = {{&limit, key(1), 2}, {&limit, key(2), 3}};
  ASSERT_EQ(charge_all(table_, std::span(charges), kNow), Outcome::admitted);
  refund_all(table_, std::span<const Charge>(charges), kNow + 1000);
  EXPECT_EQ(units_charged(table_, limit, key(1)), 0u);
  EXPECT_EQ(units_charged(table_, limit, key(2)), 0u);
}

TEST_F(ChargeTest, AFullTableChargesNothingElse) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const GcraPolicy limit = policy(9, kDay);
  for (uint64_t i = 0; i < 32; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted);
  }
  Charge charges[] = {{&limit, key(1)}, {&limit, key(99)}, {&limit, key(2)}};
  EXPECT_EQ(charge_all(table, std::span(charges), kNow), Outcome::table_full);
  EXPECT_EQ(units_charged(table, limit, key(1)), 1u);
  EXPECT_EQ(units_charged(table, limit, key(2)), 1u);
  EXPECT_EQ(charges[0].decision.remaining, 8u);
}

TEST_F(ChargeTest, AKeyLeftFarAheadByAnOlderPolicyIsFreedByItsFirstRefusal) {
  const GcraPolicy wide = policy(1000, kDay);
  const GcraPolicy narrow = policy(10, kSecond, 20);
  ASSERT_EQ(charge_one(table_, wide, key(1), kNow, 1000), Outcome::admitted);
  Charge charge{&narrow, key(1)};
  ASSERT_EQ(charge_all(table_, std::span(&charge, 1), kNow), Outcome::refused);
  EXPECT_EQ(charge.decision.retry_after_ns, 100'000'000);
  EXPECT_EQ(charge_one(table_, narrow, key(1), kNow + 99'999'999), Outcome::refused);
  EXPECT_EQ(charge_one(table_, narrow, key(1), kNow + 100'000'000), Outcome::admitted);
}

}  // namespace
}  // namespace penstock::limit
