// A bucket that hosts share, as one of them sees it.
#include "shared/limit/lease.h"

#include "tests/unit/limit/limit_fixture.h"

namespace penstock::limit {
namespace {

constexpr Hash128 kKey{0x1234567890abcdef, 0xfedcba0987654321};
constexpr int64_t kMs = 1'000'000;

struct Corrections final : Lessor {
  void correct(const Policy&, const Hash128&, int64_t amount, uint64_t) noexcept override {
    sum += amount;
  }
  void renew(const Policy&, const Hash128&, uint64_t units, uint64_t) noexcept override {
    renewed += units;
  }
  void forget(const Policy&, const Hash128&) noexcept override { ++forgotten; }
  int64_t sum = 0;
  uint64_t renewed = 0;
  int forgotten = 0;
};

class LeaseTest : public testing::Test {
 protected:
  LeaseTest() {
    lessor_.incarnation = {1, 2};
    lessor_.away = false;
    make_shared(policy_, lessor_);
    policy_.name = {5, 6};
  }
  Outcome ask(uint64_t cost = 1) {
    charge_ = Charge(&policy_, kKey, cost);
    return charge_all(table_, std::span(&charge_, 1), at(now_ns_));
  }
  static Instant at(int64_t ns) { return {ns, ns}; }
  Instant now() const { return at(now_ns_); }
  int64_t now_ms() const { return now_ns_ / kMs; }

  void lease(uint64_t units, int64_t life_ms = 2000) {
    Renewal renewal;
    ASSERT_TRUE(begin_renewal(table_, policy_, kKey, false, now_ms() + 1000, now(), renewal));
    end_renewal(table_, policy_, kKey, renewal, true, units, now_ms() + life_ms, now());
  }
  uint64_t held() const { return held_of(table_, policy_, kKey, now()).units; }

  SharedMemory memory_{Table::bytes_for(1024)};
  Table table_ = *Table::create(memory_.bytes(), kSecret);
  Corrections lessor_;
  Policy policy_ = policy(10, kSecond, 10);
  int64_t now_ns_ = kNow;
  Charge charge_;
};

TEST_F(LeaseTest, AKeyThatHoldsNothingAsks) {
  EXPECT_EQ(ask(), Outcome::unknown);
  EXPECT_TRUE(charge_.decision.asks());
}

TEST_F(LeaseTest, WhatIsHeldIsSpentAndNoMore) {
  lease(2);
  EXPECT_EQ(ask(), Outcome::admitted);
  EXPECT_EQ(ask(), Outcome::admitted);
  EXPECT_EQ(ask(), Outcome::unknown);
}

TEST_F(LeaseTest, ALeaseThatHasEndedIsWorthNothing) {
  lease(2, 100);
  now_ns_ += 99 * kMs;
  EXPECT_EQ(ask(), Outcome::admitted);
  now_ns_ += kMs;
  EXPECT_EQ(ask(), Outcome::unknown);
  EXPECT_EQ(held(), 0u);
}

TEST_F(LeaseTest, AnotherIncarnationFindsNothingHeld) {
  lease(2);
  lessor_.incarnation = {3, 4};
  EXPECT_EQ(ask(), Outcome::unknown);
}

TEST_F(LeaseTest, AKeyKnownToBeEmptyIsRefusedWithItsTrueWait) {
  note_told(table_, policy_, kKey, 10 * policy_.gcra.interval, now());
  EXPECT_EQ(ask(), Outcome::refused);
  EXPECT_EQ(charge_.decision.retry_after_ns, 100 * kMs);
  now_ns_ += 100 * kMs;
  EXPECT_EQ(ask(), Outcome::unknown);
}

TEST_F(LeaseTest, WhatIsHeldCountsForARequestThatNeedsMore) {
  lease(3);
  note_told(table_, policy_, kKey, 10 * policy_.gcra.interval, now());
  EXPECT_EQ(ask(4), Outcome::refused);
  EXPECT_EQ(charge_.decision.retry_after_ns, 100 * kMs);
  now_ns_ += 100 * kMs;
  EXPECT_EQ(ask(4), Outcome::unknown);
}

TEST_F(LeaseTest, MoreThanTheBurstIsNeverAdmitted) {
  EXPECT_EQ(ask(11), Outcome::never_admissible);
  lessor_.away = true;
  EXPECT_EQ(ask(11), Outcome::never_admissible);
}

TEST_F(LeaseTest, OneRenewsAtATime) {
  lease(1);
  Renewal first, second;
  ASSERT_TRUE(begin_renewal(table_, policy_, kKey, false, now_ms() + 1000, now(), first));
  EXPECT_EQ(first.units, 1u);
  EXPECT_FALSE(begin_renewal(table_, policy_, kKey, false, now_ms() + 1000, now(), second));
  EXPECT_EQ(ask(), Outcome::admitted);  // spending goes on
  end_renewal(table_, policy_, kKey, first, true, 5, now_ms() + 2000, now());
  EXPECT_EQ(held(), 5u);
}

TEST_F(LeaseTest, ALockEndsWithItsLeaseAndTheLateAnswerIsWorthNothing) {
  Renewal lost, next;
  ASSERT_TRUE(begin_renewal(table_, policy_, kKey, false, now_ms() + 1000, now(), lost));
  now_ns_ += 1000 * kMs;
  ASSERT_TRUE(begin_renewal(table_, policy_, kKey, false, now_ms() + 1000, now(), next));
  end_renewal(table_, policy_, kKey, lost, true, 5, now_ms() + 2000, now());
  EXPECT_EQ(held(), 0u);
  end_renewal(table_, policy_, kKey, next, true, 3, now_ms() + 2000, now());
  EXPECT_EQ(held(), 3u);
}

TEST_F(LeaseTest, WhatHadLapsedIsNotSpentBesideWhatIsGranted) {
  lease(4);
  Renewal renewal;
  ASSERT_TRUE(begin_renewal(table_, policy_, kKey, false, now_ms() + 1000, now(), renewal));
  end_renewal(table_, policy_, kKey, renewal, false, 2, now_ms() + 2000, now());
  EXPECT_EQ(held(), 2u);
}

TEST_F(LeaseTest, WhatIsGivenBackCanNoLongerBeSpent) {
  lease(4);
  Renewal renewal;
  ASSERT_TRUE(begin_renewal(table_, policy_, kKey, true, now_ms() + 1000, now(), renewal));
  EXPECT_EQ(renewal.back, 4u);
  EXPECT_EQ(renewal.units, 0u);
  EXPECT_EQ(ask(), Outcome::unknown);
}

TEST_F(LeaseTest, WhatIsInHandIsSpentFirstAndOnce) {
  lease(1);
  charge_ = Charge(&policy_, kKey, 7);
  charge_.found = true;
  charge_.ref = Ref();
  charge_.ref.state = 77;
  EXPECT_EQ(charge_all(table_, std::span(&charge_, 1), now()), Outcome::admitted);
  EXPECT_EQ(charge_.decision.next_state, 77u);
  EXPECT_EQ(held(), 1u);
}

TEST_F(LeaseTest, SharedAndLocalAreChargedTogetherOrNotAtAll) {
  lease(5);
  const Policy local = policy(1, kSecond, 1);
  const auto both = [&] {
    Charge charges[] = {{&policy_, kKey, 1}, {&local, {9, 9}, 1}};
    return charge_all(table_, charges, now());
  };
  EXPECT_EQ(both(), Outcome::admitted);
  EXPECT_EQ(both(), Outcome::refused);
  EXPECT_EQ(held(), 4u);
  lessor_.incarnation = {7, 7};  // nothing is held: the local one is not charged while it asks
  now_ns_ += int64_t{kSecond};
  EXPECT_EQ(both(), Outcome::unknown);
  EXPECT_EQ(both(), Outcome::unknown);
  Charge alone(&local, {9, 9}, 1);
  EXPECT_EQ(charge_all(table_, std::span(&alone, 1), now()), Outcome::admitted);
}

TEST_F(LeaseTest, WithoutRedisAHostSpendsWhatItHoldsAndThenItsShare) {
  lease(2);
  lessor_.away = true;
  lessor_.hosts = 5;
  EXPECT_EQ(ask(2), Outcome::admitted);
  EXPECT_EQ(ask(), Outcome::admitted);
  EXPECT_EQ(ask(), Outcome::admitted);
  EXPECT_EQ(ask(), Outcome::refused);
  EXPECT_EQ(charge_.decision.retry_after_ns, 500 * kMs);  // 10 a second, of 5 hosts
  now_ns_ += 500 * kMs;
  EXPECT_EQ(ask(), Outcome::admitted);
}

TEST_F(LeaseTest, ItsShareBeginsWithWhatWasLeft) {
  note_told(table_, policy_, kKey, 10 * policy_.gcra.interval, now());
  lessor_.away = true;
  lessor_.hosts = 2;
  EXPECT_EQ(ask(), Outcome::refused);
  now_ns_ += 200 * kMs;
  EXPECT_EQ(ask(), Outcome::admitted);
  EXPECT_EQ(ask(), Outcome::refused);
}

TEST_F(LeaseTest, WithoutRedisAllPassOrNone) {
  lessor_.away = true;
  lessor_.without = Without::kAllow;
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(ask(), Outcome::admitted);
  }
  lessor_.without = Without::kDeny;
  EXPECT_EQ(ask(), Outcome::refused);
}

TEST_F(LeaseTest, WhatIsGivenBackOfASpentUnitIsOnlyWhatHasNotFlowedBack) {
  lease(5);
  note_told(table_, policy_, kKey, 2 * policy_.gcra.interval, now());
  ASSERT_EQ(ask(2), Outcome::admitted);
  now_ns_ += 150 * kMs;
  refund_one(table_, policy_, kKey, 2, charge_.decision.next_state, now());
  EXPECT_EQ(lessor_.sum, -static_cast<int64_t>(policy_.gcra.interval / 2));
  now_ns_ += 50 * kMs;
  refund_one(table_, policy_, kKey, 2, charge_.decision.next_state, now());
  EXPECT_EQ(lessor_.sum, -static_cast<int64_t>(policy_.gcra.interval / 2));
}

TEST_F(LeaseTest, WhatWasUsedBeyondAReservationIsOwed) {
  settle_one(table_, policy_, kKey, 1, 4, 0, now());
  EXPECT_EQ(lessor_.sum, static_cast<int64_t>(3 * policy_.gcra.interval));
  EXPECT_EQ(told_of(table_, policy_, kKey), gcra_ticks(now_ns_) + 3 * policy_.gcra.interval);
}

class AskedTest : public LeaseTest {
 protected:
  AskedTest() {
    policy_ = fixed_window(5, Span::hour);
    make_shared(policy_, lessor_);
  }
  void tell(uint64_t each, int64_t wait_ms, uint64_t left, int64_t reset_ms) {
    note_asked(table_, policy_, kKey, each, wait_ms, left, reset_ms, now());
  }
};

TEST_F(AskedTest, EachRequestAsks) {
  EXPECT_EQ(ask(), Outcome::unknown);
  tell(1, 0, 4, 1000);
  EXPECT_EQ(ask(), Outcome::unknown);
  EXPECT_EQ(charge_.decision.remaining, 4u);
}

TEST_F(AskedTest, WhatIsKnownNotToFitIsRefusedUntilItDoes) {
  tell(3, 500, 2, 1000);
  EXPECT_EQ(ask(3), Outcome::refused);
  EXPECT_EQ(charge_.decision.retry_after_ns, 500 * kMs);
  EXPECT_EQ(ask(4), Outcome::refused);
  EXPECT_EQ(ask(2), Outcome::unknown);
  now_ns_ += 500 * kMs;
  EXPECT_EQ(ask(3), Outcome::unknown);
  EXPECT_EQ(ask(6), Outcome::never_admissible);
}

TEST_F(AskedTest, WhatIsInHandTellsWhatIsLeft) {
  charge_ = Charge(&policy_, kKey, 1);
  charge_.found = true;
  charge_.ref = Ref();
  charge_.ref.state = 7;
  charge_.ref.expect_key = 3;
  charge_.ref.expect_state = 900;
  EXPECT_EQ(charge_all(table_, std::span(&charge_, 1), now()), Outcome::admitted);
  EXPECT_EQ(charge_.decision.remaining, 3u);
  EXPECT_EQ(charge_.decision.reset_ns, 900);
  EXPECT_EQ(charge_.decision.next_state, 7u);
}

TEST_F(AskedTest, WithoutRedisAHostGoesByItsShareOfTheWindow) {
  lessor_.away = true;
  lessor_.hosts = 2;
  EXPECT_EQ(ask(), Outcome::admitted);
  EXPECT_EQ(ask(), Outcome::admitted);
  EXPECT_EQ(ask(), Outcome::refused);
}

TEST_F(AskedTest, WhatIsHeldOfAConcurrencyIsRenewedAndLetGoWhereItWasTaken) {
  policy_ = concurrency(4);
  make_shared(policy_, lessor_);
  renew_one(table_, policy_, kKey, 1, 77, now());
  EXPECT_EQ(lessor_.renewed, 1u);
  refund_one(table_, policy_, kKey, 1, 77, now());
  EXPECT_EQ(lessor_.sum, -1);
  lessor_.away = true;
  lessor_.hosts = 2;
  ASSERT_EQ(ask(), Outcome::admitted);
  uint64_t own = charge_.decision.next_state;
  ASSERT_EQ(ask(), Outcome::admitted);
  EXPECT_EQ(ask(), Outcome::refused);
  lessor_.away = false;
  own = renew_one(table_, policy_, kKey, 1, own, now());
  EXPECT_EQ(lessor_.renewed, 1u);
  refund_one(table_, policy_, kKey, 1, own, now());
  EXPECT_EQ(lessor_.sum, -1);
  lessor_.away = true;
  EXPECT_EQ(ask(), Outcome::admitted);
}

TEST_F(AskedTest, AResetForgetsWhatWasTold) {
  tell(1, 5000, 0, 5000);
  EXPECT_EQ(ask(), Outcome::refused);
  EXPECT_TRUE(reset_one(table_, policy_, kKey));
  EXPECT_EQ(lessor_.forgotten, 1);
  EXPECT_EQ(ask(), Outcome::unknown);
}

TEST_F(LeaseTest, BatchesFollowTheRateAndLeaveOthersTheirs) {
  const Policy fast = policy(10'000, kSecond, 10'000);
  EXPECT_EQ(batch_of(fast, 5000, 4, 0), 100u);
  EXPECT_EQ(batch_of(fast, 5000, 4, 20 * kMs), 400u);  // calls are slow: half lasts for two
  EXPECT_EQ(batch_of(fast, 5e6, 4, 0), 1250u);
  EXPECT_EQ(batch_of(fast, 10, 4, 0), 0u);
  EXPECT_EQ(batch_of(policy(10, kSecond, 10), 5000, 4, 0), 1u);
  EXPECT_EQ(batch_of(policy(10, kSecond, 7), 5000, 4, 0), 0u);
}

}  // namespace
}  // namespace penstock::limit
