// What a decision tells is true, whatever the algorithm: Retry-After, remaining, reset.

#include "tests/unit/limit/limits_of_every_kind.h"

namespace penstock::limit {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

// One key under one limit, in a table of its own.
class PromiseTest : public testing::Test {
 protected:
  void begin(const Policy& limit) {
    limit_ = limit;
    table_ = make_table<Table>(memory_);
  }
  // A log's length stays: of ends that a longer one left only Retry-After is true (log-inl.h).
  void reload(LimitsOfEveryKind& random) {
    const int64_t length_ns = limit_.length_ns;
    limit_ = random.next(random.one_in(3) ? kAlgorithms[random.below(5)] : limit_.algorithm);
    limit_.length_ns = length_ns != 0 ? length_ns : limit_.length_ns;
  }
  Decision peek(int64_t now, uint64_t cost) const {
    return peek_one(table_, limit_, key(1), now, cost);
  }
  Decision charge(int64_t now, uint64_t cost) {
    Charge charge{&limit_, key(1), cost};
    charge_all(table_, std::span<Charge>(&charge, 1), at(now));
    return charge.decision;
  }

  void retry_after_is_true_and_tight(int64_t now, uint64_t cost, const Decision& refused) {
    if (refused.never()) {
      ASSERT_GT(cost, limit_.limit);
      return;
    }
    const int64_t wait = refused.retry_after_ns;
    ASSERT_GT(wait, 0);
    ASSERT_TRUE(peek(now + wait, cost).admit) << what();
    ASSERT_FALSE(peek(now + wait - 1, cost).admit) << what();
    const int64_t told = (wait + kSecondNs - 1) / kSecondNs * kSecondNs;  // the header's seconds
    ASSERT_TRUE(peek(now + told, cost).admit) << what();
    ASSERT_FALSE(peek(now + told - kSecondNs, cost).admit) << what();
  }

  void remaining_and_reset_are_true(int64_t now, const Decision& told) {
    const uint64_t remaining = told.remaining;
    ASSERT_LE(remaining, limit_.limit);
    ASSERT_EQ(peek(now, 0).remaining, remaining) << what();
    const Decision all = peek(now, remaining);
    ASSERT_TRUE(all.admit) << what();
    ASSERT_EQ(all.delay_ns, 0) << what();
    const Decision more = peek(now, remaining + 1);
    ASSERT_TRUE(!more.admit || more.delay_ns > 0) << what();
    if (told.reset_ns == 0) {
      ASSERT_EQ(remaining, limit_.limit) << what();
      return;
    }
    ASSERT_EQ(peek(now + told.reset_ns, 0).remaining, limit_.limit) << what();
    ASSERT_EQ(peek(now + told.reset_ns, 0).reset_ns, 0) << what();
    ASSERT_EQ(peek(now + told.reset_ns - 1, 0).reset_ns, 1) << what();
  }

  // Afterwards and in between: what is settled otherwise than it was reserved.
  void settle(LimitsOfEveryKind& random, int64_t now, uint64_t reserved, uint64_t state) {
    settle_one(table_, limit_, key(1), reserved, random.cost(limit_), state, at(now));
  }

  std::string what() const {
    return "algorithm " + std::to_string(static_cast<int>(limit_.algorithm)) + ", limit " +
           std::to_string(limit_.limit);
  }

  SharedMemory memory_{Table::bytes_for(256)};
  Table table_ = make_table<Table>(memory_);
  Policy limit_;
};

TEST_F(PromiseTest, RetryAfterRemainingAndResetAreTrueOverRandomHistories) {
  LimitsOfEveryKind random(1);
  uint64_t refusals = 0;
  for (uint64_t round = 0; round < 10'000 / kScale; ++round) {
    begin(random.next());
    int64_t now = kNow + static_cast<int64_t>(random.word() >> 8);
    Decision last;
    for (int step = 0; step < 20; ++step) {
      now += random.wait(last);
      if (random.one_in(12)) {  // a reload
        reload(random);
      }
      const uint64_t cost = random.cost(limit_);
      last = charge(now, cost);
      if (!last.admit) {
        ++refusals;
        ASSERT_NO_FATAL_FAILURE(retry_after_is_true_and_tight(now, cost, last));
      }
      if (cost !=
          0) {  // one of 0 stores nothing, not even that a reload left the key too far ahead
        ASSERT_NO_FATAL_FAILURE(remaining_and_reset_are_true(now, last));
      }
      if (last.admit && cost != 0 && random.one_in(8)) {
        settle(random, now, cost, last.next_state);
        ASSERT_NO_FATAL_FAILURE(remaining_and_reset_are_true(now, peek(now, 0)));
      }
    }
  }
  EXPECT_GT(refusals, 20'000 / kScale);
}

TEST_F(PromiseTest, RetryAfterOfSeveralLimitsIsTheLatestOfTheirs) {
  LimitsOfEveryKind random(2);
  for (uint64_t round = 0; round < 2'000 / kScale; ++round) {
    table_ = make_table<Table>(memory_);
    Policy limits[3];
    Charge charges[3];
    for (uint64_t i = 0; i < 3; ++i) {
      limits[i] = random.next();
      charges[i] = {&limits[i], key(i), 1};
    }
    int64_t now = kNow + static_cast<int64_t>(random.word() >> 8);
    for (int step = 0; step < 30; ++step) {
      now += random.one_in(4) ? random.wait(charges[random.below(3)].decision) : 0;
      const Outcome outcome = charge_all(table_, std::span(charges), at(now));
      const int64_t wait = retry_after_ns(charges);
      ASSERT_EQ(outcome == Outcome::admitted, wait == 0);
      if (wait == 0) {
        continue;
      }
      Charge again[3];
      std::copy(std::begin(charges), std::end(charges), again);
      ASSERT_EQ(peek_all(table_, std::span(again), at(now + wait)), Outcome::admitted);
      ASSERT_EQ(peek_all(table_, std::span(again), at(now + wait - 1)), Outcome::refused);
    }
  }
}

// Whatever a stray write or another version left there.
TEST_F(PromiseTest, AnyStateOfAnyLimitIsDecidedAndRetryAfterIsTrueOfIt) {
  LimitsOfEveryKind random(3);
  for (uint64_t round = 0; round < 300'000 / kScale; ++round) {
    const Policy limit = random.next(kAlgorithms[random.below(4)]);
    const uint64_t near_now = gcra_ticks(kNow) + (random.word() >> random.below(64));
    const uint64_t state = random.one_in(3)   ? near_now
                           : random.one_in(2) ? random.word()
                                              : random.word() >> random.below(64);
    const int64_t now = random.one_in(2) ? kNow : static_cast<int64_t>(random.word() >> 6);
    const uint64_t cost = random.one_in(10) ? random.word() : random.cost(limit);
    const Decision decision = decide(limit, state, at(now), cost);
    ASSERT_LE(decision.remaining, limit.limit);
    ASSERT_GE(decision.reset_ns, 0);
    if (!decision.admit && cost <= limit.limit) {
      const int64_t wait = decision.retry_after_ns;
      ASSERT_GT(wait, 0);
      ASSERT_TRUE(decide(limit, decision.next_state, at(now + wait), cost).admit);
      ASSERT_FALSE(decide(limit, decision.next_state, at(now + wait - 1), cost).admit);
    }
    ASSERT_EQ(decision.never(), cost > limit.limit);
    const uint64_t given_back = refund(limit, state, random.word(), cost, at(now));
    ASSERT_GE(decide(limit, given_back, at(now), 0).remaining,
              decide(limit, state, at(now), 0).remaining);
    const uint64_t charged = overdraw(limit, state, cost, at(now));
    ASSERT_LE(decide(limit, charged, at(now), 0).remaining,
              decide(limit, state, at(now), 0).remaining);
    for (const Kind kind : {Kind::gcra, Kind::fixed, Kind::paired}) {
      idle_at(kind, state, at(now));
    }
    if (limit.algorithm == Algorithm::concurrency) {
      const uint64_t renewed = renew(limit.window, state, random.word(), 1, at(now));
      ASSERT_GE(used(limit.window, renewed, at(now)), 1u);
    }
  }
}

// What says that a slot is idle must not forget anything that is still counted.
TEST_F(PromiseTest, AStateThatIsIdleUsesNothingOfAnyLimit) {
  LimitsOfEveryKind random(4);
  for (uint64_t round = 0; round < 20'000 / kScale; ++round) {
    const Policy limit = random.next(kAlgorithms[random.below(4)]);
    int64_t now = kNow + static_cast<int64_t>(random.word() >> 8);
    uint64_t state = 0;
    Decision last;
    for (int step = 0; step < 10; ++step) {
      now += random.wait(last);
      last = decide(limit, state, at(now), random.cost(limit));
      state = last.next_state;
      const Kind kind = limit.mark.kind();
      ASSERT_EQ(idle_at(kind, state, at(now)), last.reset_ns == 0);
      ASSERT_TRUE(idle_at(kind, state, at(now + last.reset_ns)));
      ASSERT_TRUE(last.reset_ns == 0 || !idle_at(kind, state, at(now + last.reset_ns - 1)));
    }
  }
}

}  // namespace
}  // namespace penstock::limit
