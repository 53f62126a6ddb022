#include "shared/limit/gcra.h"

#include <algorithm>

#include "tests/unit/limit/limit_fixture.h"

namespace penstock::limit {
namespace {

__extension__ using Wide = __int128;

// One key, charged at times of the test's choosing.
struct Key {
  GcraPolicy limit;
  uint64_t state = 0;

  Decision charge(int64_t now_ns, uint64_t cost = 1) {
    const Decision decision = decide(limit, state, now_ns, cost);
    state = decision.next_state;
    return decision;
  }
};

// The slow, plain token bucket that GCRA must agree with. The level is in units / `per`, so that
// refilling adds whole numbers only: nothing is ever rounded.
struct TokenBucket {
  Wide per;       // level of one unit
  Wide per_tick;  // level that comes back each tick
  Wide capacity;
  Wide level = capacity;
  Wide at = 0;

  // As the policy says it.
  static TokenBucket kept(const GcraPolicy& limit) {
    return {Wide{limit.interval}, 1, Wide{limit.burst} * limit.interval};
  }
  // As the operator asked for it: amount units in period_ns.
  static TokenBucket asked(uint64_t amount, uint64_t period_ns, uint64_t burst) {
    const Wide per = Wide{period_ns} * kTicksPerNs;
    return {per, Wide{amount}, per * (burst != 0 ? burst : amount)};
  }

  void advance(int64_t now_ns) {
    const Wide now = Wide{now_ns} * kTicksPerNs;
    level = std::min(capacity, level + (now - at) * per_tick);
    at = now;
  }
  bool holds(uint64_t cost) const { return level >= per * cost; }
  void take(uint64_t cost) { level -= per * cost; }
};

struct RandomLimits {
  std::mt19937_64 random{42};

  uint64_t below(uint64_t n) { return random() % n; }
  uint64_t log_uniform(uint64_t bits) { return 1 + (random() >> (64 - 1 - below(bits))); }

  struct Limit {
    uint64_t amount, period_ns, burst;
    GcraPolicy made;
  };
  Limit next() {
    static const uint64_t periods[] = {1, 60, 3600, 86'400, 604'800, 2'678'400};
    for (;;) {
      Limit limit;
      limit.period_ns = periods[below(6)] * kSecond;
      limit.amount = log_uniform(23);
      limit.burst = below(3) == 0 ? 0 : log_uniform(20);
      if (auto made = make_gcra(limit.amount, limit.period_ns, limit.burst)) {
        limit.made = *made;
        return limit;
      }
    }
  }

  uint64_t cost(const GcraPolicy& limit) {
    switch (below(5)) {
      case 0:
        return below(limit.burst + 3);  // 0, the whole bucket, and a little more than it
      case 1:
        return 1 + below(1 + limit.burst / 3);
      default:
        return 1;
    }
  }

  // How long until the next request: mostly around the time that decides, and at most 13 days, so
  // that a history stays within the clock's 18 years.
  int64_t wait(const GcraPolicy& limit, const Decision& last) {
    return std::min(any_wait(limit, last), int64_t{1} << 50);
  }

 private:
  int64_t any_wait(const GcraPolicy& limit, const Decision& last) {
    const int64_t interval = std::max<int64_t>(1, gcra_ns_up(limit.interval));
    const int64_t bucket = std::max<int64_t>(1, gcra_ns_up(limit.tolerance));
    switch (below(8)) {
      case 0:
        return std::max<int64_t>(0, last.retry_after_ns);
      case 1:
        return std::max<int64_t>(0, last.retry_after_ns - 1);
      case 2:
        return static_cast<int64_t>(below(interval * 3));
      case 3:
        return static_cast<int64_t>(below(bucket * 2));
      case 4:
        return static_cast<int64_t>(below(3));
      default:
        return 0;
    }
  }
};

TEST(GcraTest, AdmitsBurstThenSpacesByRate) {
  Key key{gcra(10, 60 * kSecond, 5)};
  for (uint64_t left = 5; left-- > 0;) {
    const Decision decision = key.charge(kNow);
    EXPECT_TRUE(decision.admit);
    EXPECT_EQ(decision.remaining, left);
  }
  const Decision refused = key.charge(kNow);
  EXPECT_FALSE(refused.admit);
  EXPECT_EQ(refused.retry_after_ns, 6'000'000'000);
  EXPECT_EQ(refused.reset_ns, 30'000'000'000);
  EXPECT_TRUE(key.charge(kNow + 6'000'000'000).admit);
  EXPECT_FALSE(key.charge(kNow + 11'999'999'999).admit);
  EXPECT_TRUE(key.charge(kNow + 12'000'000'000).admit);
}

TEST(GcraTest, BurstIsTheRatesOwnAmountIfNoneIsGiven) {
  Key key{gcra(10, 60 * kSecond)};
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(key.charge(kNow).admit) << i;
  }
  EXPECT_EQ(key.charge(kNow).retry_after_ns, 6'000'000'000);
}

TEST(GcraTest, StateZeroAndAPastTatAreAFullBucket) {
  const GcraPolicy limit = gcra(7, kSecond, 3);
  for (const uint64_t state : {uint64_t{0}, uint64_t{5}, gcra_ticks(kNow)}) {
    const Decision decision = decide(limit, state, kNow, 0);
    EXPECT_EQ(decision.remaining, 3u);
    EXPECT_EQ(decision.reset_ns, 0);
  }
}

TEST(GcraTest, MoreThanTheBurstIsNeverAdmitted) {
  const GcraPolicy limit = gcra(10, kSecond, 5);
  const Decision decision = decide(limit, 0, kNow, 6);
  EXPECT_FALSE(decision.admit);
  EXPECT_TRUE(decision.never());
  EXPECT_EQ(decision.remaining, 5u);
  EXPECT_TRUE(decide(limit, 0, kNow, ~uint64_t{0}).never());
  EXPECT_TRUE(decide(limit, 0, kNow, 5).admit);
}

TEST(GcraTest, AgreesWithATokenBucketOverRandomHistories) {
  RandomLimits random;
  for (uint64_t round = 0; round < 4'000 / kScale; ++round) {
    const auto limit = random.next();
    Key key{limit.made};
    TokenBucket bucket = TokenBucket::kept(limit.made);
    int64_t now = kNow;
    Decision last;
    for (int step = 0; step < 200; ++step) {
      now += random.wait(limit.made, last);
      const uint64_t cost = random.cost(limit.made);
      last = key.charge(now, cost);
      bucket.advance(now);
      ASSERT_EQ(last.admit, bucket.holds(cost)) << limit.amount << "/" << limit.period_ns;
      if (last.admit) {
        bucket.take(cost);
      }
      ASSERT_EQ(Wide{last.remaining}, bucket.level / bucket.per);
      const Wide missing = bucket.capacity - bucket.level;
      ASSERT_EQ(Wide{last.reset_ns}, (missing + kTicksPerNs - 1) / kTicksPerNs);
    }
  }
}

TEST(GcraTest, NeverAdmitsMoreThanTheExactRateAsked) {
  RandomLimits random;
  for (uint64_t round = 0; round < 4'000 / kScale; ++round) {
    const auto limit = random.next();
    Key key{limit.made};
    TokenBucket bucket = TokenBucket::asked(limit.amount, limit.period_ns, limit.burst);
    int64_t now = kNow;
    Decision last;
    for (int step = 0; step < 200; ++step) {
      now += random.wait(limit.made, last);
      const uint64_t cost = random.cost(limit.made);
      last = key.charge(now, cost);
      bucket.advance(now);
      if (last.admit) {
        ASSERT_TRUE(bucket.holds(cost)) << limit.amount << "/" << limit.period_ns;
        bucket.take(cost);
      }
    }
  }
}

TEST(GcraTest, KeepsOddRatesToWithinASixteenthOfANanosecond) {
  for (const uint64_t amount : {1ull, 3ull, 7ull, 11ull, 999'983ull, 9'999'991ull, 10'000'000ull}) {
    const GcraPolicy limit = gcra(amount, kSecond);
    const Wide asked = Wide{kSecond} * kTicksPerNs;  // ticks of `amount` units
    EXPECT_GE(Wide{limit.interval} * amount, asked);
    EXPECT_LT(Wide{limit.interval} * amount, asked + amount);
  }
}

TEST(GcraTest, RetryAfterIsTrueAndTight) {
  RandomLimits random;
  uint64_t refusals = 0;
  for (uint64_t round = 0; round < 10'000 / kScale; ++round) {
    const auto limit = random.next();
    Key key{limit.made};
    int64_t now = kNow;
    Decision last;
    for (int step = 0; step < 60; ++step) {
      now += random.wait(limit.made, last);
      const uint64_t cost = random.cost(limit.made);
      last = key.charge(now, cost);
      if (last.admit || last.never()) {
        continue;
      }
      ++refusals;
      const int64_t wait = last.retry_after_ns;
      ASSERT_GT(wait, 0);
      ASSERT_TRUE(decide(limit.made, key.state, now + wait, cost).admit);
      ASSERT_FALSE(decide(limit.made, key.state, now + wait - 1, cost).admit);
      if (wait >= static_cast<int64_t>(kSecond)) {
        ASSERT_FALSE(decide(limit.made, key.state, now + wait - int64_t{kSecond}, cost).admit);
      }
    }
  }
  EXPECT_GT(refusals, 20'000 / kScale);
}

TEST(GcraTest, RefundUndoesAnAdmissionExactly) {
  RandomLimits random;
  for (uint64_t round = 0; round < 20'000 / kScale; ++round) {
    const auto limit = random.next();
    Key key{limit.made};
    key.charge(kNow, random.cost(limit.made));
    const uint64_t before = std::max(key.state, gcra_ticks(kNow));
    const uint64_t cost = random.cost(limit.made);
    const Decision decision = key.charge(kNow, cost);
    if (!decision.admit || cost == 0) {
      continue;
    }
    EXPECT_EQ(refund(limit.made, key.state, decision.next_state, cost, kNow), before);
    // A charge in between stays charged.
    const uint64_t between = decide(limit.made, key.state, kNow, 1).next_state;
    EXPECT_EQ(refund(limit.made, between, decision.next_state, cost, kNow),
              before + (between - decision.next_state));
  }
}

// Reserve, let another request come while the bucket drains, settle late: the exact answer is that
// of a bucket that never saw the unused part, and less is allowed but more is not.
TEST(GcraTest, ALateRefundNeverGivesBackWhatHasFlowedBackByItself) {
  RandomLimits random;
  for (uint64_t round = 0; round < 20'000 / kScale; ++round) {
    const auto limit = random.next();
    const int64_t bucket = gcra_ns_up(limit.made.tolerance);
    Key key{limit.made};
    const uint64_t reserved = 1 + random.below(limit.made.burst);
    const uint64_t unused = 1 + random.below(reserved);
    const Decision first = key.charge(kNow, reserved);
    Key exact{limit.made};
    exact.charge(kNow, reserved - unused);
    const int64_t second_at = kNow + static_cast<int64_t>(random.below(bucket + 1));
    if (key.charge(second_at, 1).admit) {
      exact.charge(second_at, 1);
    }
    const int64_t settled_at = second_at + static_cast<int64_t>(random.below(3)) * bucket / 7;
    const uint64_t after = refund(limit.made, key.state, first.next_state, unused, settled_at);
    const uint64_t settled = gcra_ticks(settled_at);
    EXPECT_GE(std::max(after, settled), std::max(exact.state, settled));
  }
}

TEST(GcraTest, AnOlderClockNeverAdmitsMore) {
  RandomLimits random;
  for (uint64_t round = 0; round < 4'000 / kScale; ++round) {
    const auto limit = random.next();
    Key key{limit.made};
    TokenBucket bucket = TokenBucket::kept(limit.made);
    int64_t now = kNow;
    Decision last;
    for (int step = 0; step < 100; ++step) {
      now += random.wait(limit.made, last);
      bucket.advance(now);
      const auto stale = static_cast<int64_t>(random.below(kClockSkewNs));
      last = key.charge(random.below(2) == 0 && key.state > gcra_ticks(now) ? now - stale : now);
      if (last.admit) {
        ASSERT_TRUE(bucket.holds(1));
        bucket.take(1);
      }
    }
  }
}

TEST(GcraTest, WithADelayWhatComesTooEarlyIsSpacedByTheRate) {
  Key key{gcra(10, kSecond, 1)};
  allow_delay(key.limit, kSecond / 2);
  for (int64_t excess = 0; excess <= 5; ++excess) {
    const Decision decision = key.charge(kNow);
    EXPECT_TRUE(decision.admit);
    EXPECT_EQ(decision.delay_ns, excess * 100'000'000);
    EXPECT_EQ(decision.remaining, 0u);
  }
  const Decision refused = key.charge(kNow);
  EXPECT_FALSE(refused.admit);
  EXPECT_EQ(refused.retry_after_ns, 100'000'000);
  EXPECT_EQ(key.charge(kNow + 100'000'000).delay_ns, 500'000'000);
}

TEST(GcraTest, ADebtIsWaitedForAndIsNoMoreThanABucket) {
  const auto minute = static_cast<int64_t>(60 * kSecond);
  Key key{gcra(10, 600 * kSecond, 10)};
  ASSERT_TRUE(key.charge(kNow, 10).admit);
  key.state = overdraw(key.limit, key.state, 5, kNow);
  EXPECT_EQ(key.charge(kNow).retry_after_ns, 6 * minute);
  key.state = overdraw(key.limit, key.state, ~uint64_t{0}, kNow);
  EXPECT_EQ(key.charge(kNow).retry_after_ns, 11 * minute);
  EXPECT_EQ(key.state, overdraw(key.limit, key.state, 1, kNow));
}

TEST(GcraTest, ABucketAsFarAheadAsDelayAndDebtAllowIsNotTakenForAnOlderPolicys) {
  const auto minute = static_cast<int64_t>(60 * kSecond);
  Key key{gcra(1, 60 * kSecond, 10)};
  allow_delay(key.limit, 3600 * kSecond);
  for (int i = 0; i < 7; ++i) {
    ASSERT_TRUE(key.charge(kNow, 10).admit);
  }
  key.state = overdraw(key.limit, key.state, 10, kNow);
  const auto stale = static_cast<int64_t>(kClockSkewNs);
  EXPECT_EQ(key.charge(kNow - stale).retry_after_ns, 11 * minute + stale);
}

// The token bucket again: it may run below zero as far as it takes to hold requests back, and once
// more its size for what was overdrawn. A reload keeps how long it takes until it is full.
TEST(GcraTest, AgreesWithABucketThatDelaysAndOwesOverRandomHistories) {
  RandomLimits random;
  const auto made = [&] {
    GcraPolicy limit = random.next().made;
    if (random.below(2) == 0) {
      allow_delay(limit, random.below(gcra_ns_up(limit.tolerance) + 1));
    }
    return limit;
  };
  for (uint64_t round = 0; round < 4'000 / kScale; ++round) {
    Key key{made()};
    TokenBucket bucket = TokenBucket::kept(key.limit);
    int64_t now = kNow;
    Decision last;
    for (int step = 0; step < 100; ++step) {
      now += random.wait(key.limit, last);
      bucket.advance(now);
      const Wide missing = bucket.capacity - bucket.level;
      if (random.below(40) == 0) {
        key.limit = made();
        bucket = TokenBucket::kept(key.limit);
        bucket.level -= missing;
        bucket.at = Wide{now} * kTicksPerNs;
      }
      const Wide delay = key.limit.delay;
      const uint64_t cost = std::max<uint64_t>(1, random.cost(key.limit));
      const bool beyond = bucket.capacity - bucket.level > Wide{key.limit.ceiling()};
      if (random.below(10) == 0 && !beyond) {
        key.state = overdraw(key.limit, key.state, cost, now);
        const Wide least = std::min(bucket.level, -bucket.capacity - delay);
        bucket.level = std::max(bucket.level - bucket.per * cost, least);
        continue;
      }
      if (beyond) {
        bucket.level = 0;
      }
      last = key.charge(now, cost);
      const Wide then = bucket.level - bucket.per * cost;
      ASSERT_EQ(last.admit, cost <= key.limit.burst && then >= -delay);
      if (last.admit) {
        bucket.level = then;
        ASSERT_EQ(Wide{last.delay_ns}, then < 0 ? (-then + kTicksPerNs - 1) / kTicksPerNs : 0);
      } else {
        ASSERT_EQ(last.delay_ns, 0);
      }
      ASSERT_EQ(Wide{last.remaining}, std::max(bucket.level, Wide{0}) / bucket.per);
    }
  }
}

TEST(GcraTest, ARefundByAReloadedRateTakesBackNoMoreThanABucket) {
  Key key{gcra(10'000'000, kSecond, 1'000'000'000)};
  const uint64_t cost = 1004674;  // at the new rate, a little more than a multiple of 2^64 ticks
  const uint64_t admitted = key.charge(kNow, cost).next_state;
  key.limit = gcra(1, 31 * kDay, 53);
  EXPECT_EQ(refund(key.limit, key.state, admitted, cost, kNow), 0u);
}

TEST(GcraTest, AReloadWithASmallerBucketLocksAKeyForNoMoreThanThat) {
  Key key{gcra(1000, kDay)};
  ASSERT_TRUE(key.charge(kNow, 1000).admit);
  key.limit = gcra(10, kSecond, 20);
  const Decision refused = key.charge(kNow + 1);
  EXPECT_FALSE(refused.admit);
  EXPECT_EQ(refused.retry_after_ns, 100'000'000);
  EXPECT_EQ(refused.reset_ns, 2'000'000'000);
  EXPECT_TRUE(key.charge(kNow + 1 + refused.retry_after_ns).admit);
}

TEST(GcraTest, AReloadWithALargerBucketKeepsWhatWasUsed) {
  Key key{gcra(10, kSecond, 10)};
  ASSERT_TRUE(key.charge(kNow, 10).admit);
  key.limit = gcra(10, kSecond, 30);
  EXPECT_EQ(key.charge(kNow, 0).remaining, 20u);
}

TEST(GcraTest, AnyStateIsDecidedWithoutOverflow) {
  for (const GcraPolicy& limit : {gcra(1, 31 * kDay, 53), gcra(10'000'000, kSecond)}) {
    for (const uint64_t state : {~uint64_t{0}, ~uint64_t{0} >> 1, uint64_t{1}}) {
      for (const int64_t now : {int64_t{0}, kNow, (int64_t{1} << 59) - 1}) {
        const Decision decision = decide(limit, state, now, limit.burst);
        EXPECT_GE(decision.retry_after_ns, 0);
        EXPECT_LE(decision.retry_after_ns,
                  gcra_ns_up(limit.tolerance) + static_cast<int64_t>(kClockSkewNs));
        EXPECT_LE(decision.remaining, limit.burst);
      }
    }
  }
}

TEST(GcraTest, PoliciesThatCannotBeKeptAreRefusedWithWhatWouldBeRight) {
  const auto message = [](uint64_t amount, uint64_t period, uint64_t burst) {
    const auto made = make_gcra(amount, period, burst);
    return made ? std::string() : made.error().message;
  };
  EXPECT_NE(message(0, kSecond, 1).find("1 or more"), std::string::npos);
  EXPECT_NE(message(1, 0, 1).find("at most a month"), std::string::npos);
  EXPECT_NE(message(10'000'001, kSecond, 1).find("10000000 or less"), std::string::npos);
  EXPECT_NE(message(1, kSecond, 1'000'000'001).find("at most 1000000000"), std::string::npos);
  EXPECT_NE(message(1, 31 * kDay, 1000).find("use at most 53"), std::string::npos);
  EXPECT_EQ(message(1, 31 * kDay, 53), "");
  EXPECT_EQ(message(10'000'000, kSecond, 1'000'000'000), "");
}

}  // namespace
}  // namespace penstock::limit
