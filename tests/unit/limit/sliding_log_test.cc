// The sliding log against a list of the moments at which units were admitted.

#include <algorithm>

#include "tests/unit/limit/limits_of_every_kind.h"

namespace penstock::limit {
namespace {

class SlidingLogTest : public testing::Test {
 protected:
  Decision charge(const Policy& limit, int64_t now, uint64_t cost = 1) {
    Charge charge{&limit, key(1), cost};
    outcome_ = charge_all(table_, std::span<Charge>(&charge, 1), at(now));
    return charge.decision;
  }

  SharedMemory memory_{Table::bytes_for(512)};
  Table table_ = make_table<Table>(memory_);
  Outcome outcome_ = Outcome::admitted;
};

struct Log {
  int64_t length;
  uint64_t limit;
  std::vector<int64_t> units;  // when each was admitted, in order

  void forget(int64_t now) {
    std::erase_if(units, [&](int64_t when) { return when + length <= now; });
  }
  int64_t wait(int64_t now, uint64_t cost) const {
    return units[units.size() + cost - limit - 1] + length - now;
  }
};

TEST_F(SlidingLogTest, AgreesWithAListOfMomentsOverRandomHistories) {
  LimitsOfEveryKind random(5);
  for (uint64_t round = 0; round < 2'000 / kScale; ++round) {
    table_ = make_table<Table>(memory_);
    Policy limit = random.next(Algorithm::sliding_log);
    Log log{limit.length_ns, limit.limit, {}};
    int64_t now = kNow;
    Decision last;
    for (int step = 0; step < 60; ++step) {
      now += random.wait(last);
      if (random.one_in(25)) {  // a reload that widens it
        log.limit += random.below(5);
        limit.limit = log.limit;
      }
      const uint64_t cost = random.cost(limit);
      log.forget(now);
      last = charge(limit, now, cost);
      ASSERT_EQ(last.admit, log.units.size() + cost <= log.limit);
      if (last.admit) {
        log.units.insert(log.units.end(), cost, now);
      } else if (cost <= log.limit) {
        ASSERT_EQ(last.retry_after_ns, log.wait(now, cost));
      } else {
        ASSERT_TRUE(last.never());
      }
      ASSERT_EQ(last.remaining, log.limit - log.units.size());
      ASSERT_EQ(last.reset_ns, log.units.empty() ? 0 : log.units.back() + log.length - now);
      if (last.admit && cost != 0 && random.one_in(5)) {
        const uint64_t back = random.below(cost + 1);
        const int64_t later = now + static_cast<int64_t>(random.below(3));
        settle_one(table_, limit, key(1), cost, cost - back, last.next_state, at(later));
        log.units.resize(log.units.size() - back);
      }
    }
  }
}

TEST_F(SlidingLogTest, AnyWindowWhereverItBeginsHoldsTheLimit) {
  const Policy limit = sliding_log(3, 10 * int64_t{kSecond});
  std::vector<int64_t> admitted;
  for (int64_t now = kNow; now < kNow + 200 * int64_t{kSecond}; now += 700'000'000) {
    if (charge(limit, now).admit) {
      admitted.push_back(now);
    }
  }
  ASSERT_GT(admitted.size(), 50u);
  for (size_t i = 3; i < admitted.size(); ++i) {
    EXPECT_GE(admitted[i] - admitted[i - 3], limit.length_ns);
  }
}

TEST_F(SlidingLogTest, ARefusalTakesNoSlots) {
  const Policy limit = sliding_log(5, kSecond);
  ASSERT_TRUE(charge(limit, kNow, 3).admit);
  EXPECT_FALSE(charge(limit, kNow, 3).admit);
  EXPECT_EQ(table_.usage(at(kNow)).live, 3u);
}

TEST_F(SlidingLogTest, AFullTableChargesNoneOfIt) {
  const SharedMemory memory(Table::bytes_for(32));
  table_ = make_table<Table>(memory);
  const Policy day = policy(1, kDay);
  for (uint64_t i = 100; i < 130; ++i) {
    ASSERT_EQ(charge_one(table_, day, key(i)), Outcome::admitted);
  }
  const Policy limit = sliding_log(5, kSecond);
  charge(limit, kNow, 3);
  EXPECT_EQ(outcome_, Outcome::table_full);
  EXPECT_EQ(table_.usage(at(kNow)).live, 30u);
  EXPECT_TRUE(charge(limit, kNow, 2).admit);
}

TEST_F(SlidingLogTest, AShorterWindowLocksAKeyForNoMoreThanThat) {
  const Policy day = sliding_log(10, kDay);
  const Policy second = sliding_log(10, kSecond);
  ASSERT_TRUE(charge(day, kNow, 10).admit);
  EXPECT_EQ(peek_one(table_, second, key(1), kNow, 1).retry_after_ns, int64_t{kSecond});
  const int64_t later = kNow + 20 * int64_t{kSecond};
  const Decision refused = charge(second, later);
  EXPECT_EQ(refused.retry_after_ns, int64_t{kSecond});
  EXPECT_FALSE(charge(second, later + int64_t{kSecond} - 1).admit);
  EXPECT_TRUE(charge(second, later + int64_t{kSecond}, 10).admit);
}

TEST_F(SlidingLogTest, ALongerWindowKeepsTheEndsThatWereGiven) {
  const Policy second = sliding_log(2, kSecond);
  const Policy day = sliding_log(2, kDay);
  ASSERT_TRUE(charge(second, kNow, 2).admit);
  EXPECT_EQ(charge(day, kNow).retry_after_ns, int64_t{kSecond});
}

TEST_F(SlidingLogTest, WhatWasUsedBeyondAReservationTakesWhatRoomThereIs) {
  const Policy limit = sliding_log(10, kSecond);
  const Decision admitted = charge(limit, kNow, 4);
  settle_one(table_, limit, key(1), 4, 7, admitted.next_state, at(kNow));
  EXPECT_EQ(units_used(table_, limit, key(1)), 7u);
  settle_one(table_, limit, key(1), 4, 100, admitted.next_state, at(kNow));
  EXPECT_EQ(units_used(table_, limit, key(1)), 10u);
}

TEST_F(SlidingLogTest, ALateRefundGivesBackNothingThatIsAnothers) {
  const Policy limit = sliding_log(2, kSecond);
  const Decision first = charge(limit, kNow, 2);
  const int64_t later = kNow + int64_t{kSecond};
  ASSERT_TRUE(charge(limit, later, 2).admit);
  refund_one(table_, limit, key(1), 2, first.next_state, at(later));
  EXPECT_EQ(units_used(table_, limit, key(1), later), 2u);
}

TEST_F(SlidingLogTest, ResetForgetsEveryUnit) {
  const Policy limit = sliding_log(30, kDay);
  EXPECT_FALSE(reset_one(table_, limit, key(1)));
  ASSERT_TRUE(charge(limit, kNow, 30).admit);
  EXPECT_TRUE(reset_one(table_, limit, key(1)));
  EXPECT_EQ(units_used(table_, limit, key(1)), 0u);
}

TEST_F(SlidingLogTest, AStateOfTheFarFutureIsNoLockForEver) {
  const Policy limit = sliding_log(4, kSecond);
  for (uint64_t i = 0; i < 4; ++i) {
    Ref ref;
    ASSERT_EQ(table_.claim(entry(key(1), i), Kind::gcra, at(kNow), ref), Table::ClaimResult::mine);
    ASSERT_TRUE(table_.commit(ref, ~uint64_t{i}));
  }
  EXPECT_EQ(charge(limit, kNow).retry_after_ns, int64_t{kSecond});
  EXPECT_TRUE(charge(limit, kNow + int64_t{kSecond}, 4).admit);
}

TEST_F(SlidingLogTest, LogsThatCannotBeKeptAreRefusedWithWhatWouldBeRight) {
  const auto why = [](uint64_t limit, int64_t length) {
    const auto made = make_sliding_log(limit, length);
    return made ? std::string() : made.error().message;
  };
  EXPECT_NE(why(0, kSecond).find("1 or more"), std::string::npos);
  EXPECT_NE(why(1001, kSecond).find("at most 1000"), std::string::npos);
  EXPECT_NE(why(1, 0).find("at most a month"), std::string::npos);
  EXPECT_NE(why(1, 31 * kDay + 1).find("at most a month"), std::string::npos);
  EXPECT_EQ(why(1000, 31 * kDay), "");
}

}  // namespace
}  // namespace penstock::limit
