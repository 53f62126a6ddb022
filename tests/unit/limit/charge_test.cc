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
  const Policy limits[5] = {policy(5, kDay), policy(4, kDay), policy(3, kDay), policy(9, kDay),
                            policy(8, kDay)};
  std::vector<Charge> charges;
  for (uint64_t i = 0; i < 5; ++i) {
    charges.push_back({&limits[i], key(i), 1});
  }
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::admitted);
    EXPECT_EQ(charges[2].decision.remaining, 2u - i);
  }
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::refused);
  }
  for (uint64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(units_charged(table_, limits[i], key(i)), 3u);
    EXPECT_EQ(charges[i].decision.admit, i != 2);
    EXPECT_EQ(charges[i].decision.remaining, limits[i].limit - 3) << "what is left uncharged";
  }
}

TEST_F(ChargeTest, RetryAfterIsTheLargestOverTheLimitsThatWereExceeded) {
  const Policy second = policy(1, kSecond);
  const Policy minute = policy(1, 60 * kSecond);
  const Policy day = policy(100, kDay);
  Charge charges[] = {{&second, key(1)}, {&minute, key(2)}, {&day, key(3)}};
  ASSERT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::admitted);
  EXPECT_EQ(retry_after_ns(charges), 0);
  ASSERT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::refused);
  EXPECT_EQ(retry_after_ns(charges), 60'000'000'000);
  EXPECT_EQ(charge_all(table_, std::span(charges), at(kNow + 59'999'999'999)), Outcome::refused);
  EXPECT_EQ(charge_all(table_, std::span(charges), at(kNow + 60'000'000'000)), Outcome::admitted);
}

TEST_F(ChargeTest, ARefusalTakesNoSlotForANewKey) {
  const Policy limit = policy(1, kDay);
  ASSERT_EQ(charge_one(table_, limit, key(1)), Outcome::admitted);
  Charge charges[] = {{&limit, key(2)}, {&limit, key(1)}};
  ASSERT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::refused);
  EXPECT_EQ(table_.usage(at(kNow)).live, 1u);
  EXPECT_EQ(table_.usage(at(kNow)).idle, 0u);
}

TEST_F(ChargeTest, ACostOverTheBurstSaysSo) {
  const Policy small = policy(2, kDay);
  const Policy large = policy(100, kDay);
  Charge charges[] = {{&large, key(1), 5}, {&small, key(2), 3}};
  EXPECT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::never_admissible);
  EXPECT_EQ(retry_after_ns(charges), kNever);
  EXPECT_TRUE(charges[0].decision.admit);
  EXPECT_EQ(table_.usage(at(kNow)).live, 0u);
}

TEST_F(ChargeTest, TheSameKeyTwiceIsChargedTwiceOrNotAtAll) {
  const Policy limit = policy(3, kDay);
  Charge charges[] = {{&limit, key(1)}, {&limit, key(1)}};
  EXPECT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::admitted);
  EXPECT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::refused);
  EXPECT_EQ(units_charged(table_, limit, key(1)), 2u);
}

TEST_F(ChargeTest, PeekSaysWhatWouldBeAndChargesNothing) {
  const Policy limit = policy(2, kDay);
  Charge charge{&limit, key(1), 2};
  EXPECT_EQ(peek_all(table_, std::span(&charge, 1), at(kNow)), Outcome::admitted);
  EXPECT_EQ(charge.decision.remaining, 0u);
  EXPECT_EQ(table_.usage(at(kNow)).live, 0u);
  EXPECT_EQ(charge_all(table_, std::span(&charge, 1), at(kNow)), Outcome::admitted);
  EXPECT_EQ(peek_all(table_, std::span(&charge, 1), at(kNow)), Outcome::refused);
}

TEST_F(ChargeTest, RefundAllPutsBackWhatAnEarlierStageCharged) {
  const Policy limit = policy(3, kDay);
  Charge charges[] = {{&limit, key(1), 2}, {&limit, key(2), 3}};
  ASSERT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::admitted);
  refund_all(table_, std::span<const Charge>(charges), at(kNow + 1000));
  EXPECT_EQ(units_charged(table_, limit, key(1)), 0u);
  EXPECT_EQ(units_charged(table_, limit, key(2)), 0u);
}

TEST_F(ChargeTest, AFullTableChargesNothingElse) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const Policy limit = policy(9, kDay);
  for (uint64_t i = 0; i < 32; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted);
  }
  Charge charges[] = {{&limit, key(1)}, {&limit, key(99)}, {&limit, key(2)}};
  EXPECT_EQ(charge_all(table, std::span(charges), at(kNow)), Outcome::table_full);
  EXPECT_EQ(units_charged(table, limit, key(1)), 1u);
  EXPECT_EQ(units_charged(table, limit, key(2)), 1u);
  EXPECT_EQ(charges[0].decision.remaining, 8u);
}

TEST_F(ChargeTest, AnAdvisoryLimitIsChargedIfItAdmitsAndHoldsUpNobody) {
  const Policy limit = policy(9, kDay);
  const Policy hint = policy(2, kDay);
  Charge charges[] = {{&hint, key(1)}, {&limit, key(2)}};
  charges[0].advisory = true;
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::admitted);
    EXPECT_EQ(charges[0].charged, i < 2) << "also where the same charges are used again";
    EXPECT_EQ(charges[0].decision.admit, i < 2);
  }
  EXPECT_EQ(retry_after_ns(charges), 0);
  refund_all(table_, std::span<const Charge>(charges), at(kNow));
  EXPECT_EQ(units_charged(table_, hint, key(1)), 2u) << "the last one never had it";
  EXPECT_EQ(units_charged(table_, limit, key(2)), 4u);
}

TEST_F(ChargeTest, AnAdvisoryCostOverTheLimitRefusesNothing) {
  const Policy limit = policy(9, kDay);
  Charge charges[] = {{&limit, key(1), 10}, {&limit, key(2)}};
  charges[0].advisory = true;
  EXPECT_EQ(charge_all(table_, std::span(charges), at(kNow)), Outcome::admitted);
  EXPECT_EQ(retry_after_ns(charges), 0);
}

TEST_F(ChargeTest, AnAdvisoryLimitWithoutASlotHoldsUpNobody) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const Policy limit = policy(9, kDay);
  for (uint64_t i = 0; i < 32; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i)), Outcome::admitted);
  }
  Charge charges[] = {{&limit, key(99)}, {&limit, key(1)}};
  charges[0].advisory = true;
  EXPECT_EQ(charge_all(table, std::span(charges), at(kNow)), Outcome::admitted);
  EXPECT_FALSE(charges[0].charged);
  EXPECT_EQ(units_charged(table, limit, key(1)), 2u);
}

TEST_F(ChargeTest, WhatAReloadLeftFarAheadIsFreedThoughItsLimitIsAdvisory) {
  for (const auto& [wide, narrow] : {std::pair{policy(10, kDay), policy(10, kSecond)},
                                     std::pair{sliding_log(10, kDay), sliding_log(10, kSecond)}}) {
    ASSERT_EQ(charge_one(table_, wide, key(1), kNow, 10), Outcome::admitted);
    Charge charge{&narrow, key(1), 10};
    charge.advisory = true;
    ASSERT_EQ(charge_all(table_, std::span(&charge, 1), at(kNow)), Outcome::admitted);
    EXPECT_EQ(charge.decision.retry_after_ns, int64_t{kSecond});
    charge_all(table_, std::span(&charge, 1), at(kNow + int64_t{kSecond}));
    EXPECT_TRUE(charge.charged);
  }
}

TEST_F(ChargeTest, SettlingGivesBackTheRestOrChargesWhatIsBeyond) {
  for (const Policy& limit : {policy(100, kDay), fixed_window(100, Span::day),
                              sliding_window(100, Span::day), sliding_log(100, kDay)}) {
    table_ = make_table<Table>(memory_);
    Charge charge{&limit, key(1), 10};
    ASSERT_EQ(charge_all(table_, std::span(&charge, 1), at(kNow)), Outcome::admitted);
    const uint64_t state = charge.decision.next_state;
    settle_one(table_, limit, key(1), 10, 10, state, at(kNow));
    EXPECT_EQ(units_used(table_, limit, key(1)), 10u);
    settle_one(table_, limit, key(1), 10, 4, state, at(kNow));
    EXPECT_EQ(units_used(table_, limit, key(1)), 4u);
    settle_one(table_, limit, key(1), 4, 60, state, at(kNow));
    EXPECT_EQ(units_used(table_, limit, key(1)), 60u);
    settle_one(table_, limit, key(2), 0, 7, 0, at(kNow));
    EXPECT_EQ(units_used(table_, limit, key(2)), 7u) << "of a key that has no slot";
  }
}

TEST_F(ChargeTest, ALeaseThatFindsNoSlotToBeRenewedInKeepsItsOldState) {
  const SharedMemory memory(Table::bytes_for(32));
  auto table = make_table<Table>(memory);
  const Policy leases = concurrency(2);
  Charge lease{&leases, key(1)};
  ASSERT_EQ(charge_all(table, std::span(&lease, 1), at(kNow)), Outcome::admitted);
  const int64_t later = kNow + 3 * kLeaseNs;
  const Policy limit = policy(9, kDay);
  for (uint64_t i = 100; i < 132; ++i) {
    ASSERT_EQ(charge_one(table, limit, key(i), later), Outcome::admitted);
  }
  const uint64_t state = lease.decision.next_state;
  EXPECT_EQ(renew_one(table, leases, key(1), 1, state, at(later)), state);
}

TEST_F(ChargeTest, RenewedLeasesOutlastTheirWindowsAndThenComeBack) {
  const Policy leases = concurrency(3);
  Charge lease{&leases, key(1), 2};
  ASSERT_EQ(charge_all(table_, std::span(&lease, 1), at(kNow)), Outcome::admitted);
  uint64_t state = lease.decision.next_state;
  int64_t now = kNow;
  for (int i = 0; i < 20; ++i) {
    now += kLeaseNs / 2;
    state = renew_one(table_, leases, key(1), 2, state, at(now));
    EXPECT_EQ(units_used(table_, leases, key(1), now), 2u);
  }
  refund_one(table_, leases, key(1), 2, state, at(now));
  EXPECT_EQ(units_used(table_, leases, key(1), now), 0u);
}

TEST_F(ChargeTest, ResetForgetsOneKeyUnderOneLimit) {
  for (const Policy& limit : {policy(3, kDay), fixed_window(3, Span::day),
                              sliding_window(3, Span::day), concurrency(3)}) {
    table_ = make_table<Table>(memory_);
    EXPECT_FALSE(reset_one(table_, limit, key(1)));
    ASSERT_EQ(charge_one(table_, limit, key(1), kNow, 3), Outcome::admitted);
    ASSERT_EQ(charge_one(table_, limit, key(2), kNow, 3), Outcome::admitted);
    EXPECT_TRUE(reset_one(table_, limit, key(1)));
    EXPECT_EQ(charge_one(table_, limit, key(1), kNow, 3), Outcome::admitted);
    EXPECT_EQ(charge_one(table_, limit, key(2)), Outcome::refused);
  }
}

TEST_F(ChargeTest, AnotherAlgorithmWhoseTermsNobodyNotedCountsAnew) {
  const Policy before = policy(3, kDay);
  const Policy after = fixed_window(3, Span::day);
  ASSERT_EQ(charge_one(table_, before, key(1), kNow, 3), Outcome::admitted);
  EXPECT_EQ(charge_one(table_, after, key(1), kNow, 3), Outcome::admitted);
  EXPECT_EQ(charge_one(table_, after, key(1), kNow), Outcome::refused);
}

TEST_F(ChargeTest, AKeyLeftFarAheadByAnOlderPolicyIsFreedByItsFirstRefusal) {
  const Policy wide = policy(1000, kDay);
  const Policy narrow = policy(10, kSecond, 20);
  ASSERT_EQ(charge_one(table_, wide, key(1), kNow, 1000), Outcome::admitted);
  Charge charge{&narrow, key(1)};
  ASSERT_EQ(charge_all(table_, std::span(&charge, 1), at(kNow)), Outcome::refused);
  EXPECT_EQ(charge.decision.retry_after_ns, 100'000'000);
  EXPECT_EQ(charge_one(table_, narrow, key(1), kNow + 99'999'999), Outcome::refused);
  EXPECT_EQ(charge_one(table_, narrow, key(1), kNow + 100'000'000), Outcome::admitted);
}

}  // namespace
}  // namespace penstock::limit
