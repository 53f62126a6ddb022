// Rates and periods that change at a reload: what was counted stays, and flows back by the rate in
// force, for new processes and old ones.

#include "shared/limit/terms.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>

#include "shared/limit/snapshot.h"
#include "tests/unit/limit/limits_of_every_kind.h"

namespace penstock::limit {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kMinuteNs = 60 * kSecondNs;
constexpr int64_t kHourNs = 60 * kMinuteNs;
constexpr int64_t kDayNs = 24 * kHourNs;
constexpr Hash128 kName{0x1234, 0x5678};

// One limit's name in a zone, and the processes of Nginx that know it: each has its own view of the
// table, and the policy of the configuration with which it began.
class TermsTest : public testing::Test {
 protected:
  struct Process {
    Table table;
    Policy limit;
  };

  static Policy named(Policy policy) {
    policy.name = kName;
    return policy;
  }
  static Policy per_minute(uint64_t amount, uint64_t burst = 5) {
    return named(policy(amount, 60 * kSecond, burst));
  }

  // A configuration with this limit takes effect: its processes.
  Process reload(const Policy& limit, int64_t now) {
    master_ = *Table::attach(memory_.bytes());
    Policy its = named(limit);
    begin_terms(master_, std::span<const Policy>(&its, 1), at(now));
    if (its.algorithm == Algorithm::sliding_log) {
      its.places = log_places(master_, its);
    }
    return {master_, its};
  }
  static Decision charge(Process& by, int64_t now, uint64_t cost = 1) {
    Charge charge{&by.limit, key(1), cost};
    charge_all(by.table, std::span<Charge>(&charge, 1), at(now));
    return charge.decision;
  }
  // As many single units as are admitted at that moment.
  static uint64_t admitted(Process& by, int64_t now) {
    uint64_t count = 0;
    while (count < 2000 && charge(by, now).admit) {
      ++count;
    }
    return count;
  }
  static uint64_t used(const Process& by, int64_t now) {
    return units_used(by.table, by.limit, key(1), now);
  }

  SharedMemory memory_{Table::bytes_for(1024)};
  Table master_ = make_table<Table>(memory_);
};

TEST_F(TermsTest, ARaisedRateMakesNobodyWaitLonger) {
  Process before = reload(per_minute(10), kNow);
  ASSERT_EQ(admitted(before, kNow), 5u);
  EXPECT_EQ(charge(before, kNow).retry_after_ns, 6 * kSecondNs);
  Process after = reload(per_minute(20), kNow);
  EXPECT_EQ(charge(after, kNow).retry_after_ns, 3 * kSecondNs);
  EXPECT_TRUE(charge(after, kNow + 3 * kSecondNs).admit);
  EXPECT_FALSE(charge(after, kNow + 3 * kSecondNs).admit);
}

TEST_F(TermsTest, ALoweredRateGivesNobodyMoreAtOnce) {
  const std::pair<Policy, Policy> changes[] = {
      {per_minute(90), per_minute(9)},
      {per_minute(30), named(policy(30, 3600 * kSecond, 5))},
      {named(policy(10, kSecond, 20)), per_minute(1, 20)}};
  for (const auto& [from, to] : changes) {
    master_ = make_table<Table>(memory_);
    Process before = reload(from, kNow);
    ASSERT_EQ(admitted(before, kNow), from.limit);
    Process after = reload(to, kNow + 1000);
    EXPECT_EQ(admitted(after, kNow + 1000), 0u);
    const int64_t interval = gcra_ns_up(to.gcra.interval);
    EXPECT_EQ(admitted(after, kNow + interval / 2), 0u) << "at the new rate from then on";
    EXPECT_EQ(admitted(after, kNow + 1000 + interval), 1u);
    EXPECT_EQ(admitted(after, kNow + 1000 + 4 * interval), 3u);
  }
}

TEST_F(TermsTest, AnotherBurstKeepsWhatWasUsed) {
  Process before = reload(per_minute(6, 5), kNow);
  ASSERT_TRUE(charge(before, kNow, 3).admit);
  Process more = reload(per_minute(6, 10), kNow);
  EXPECT_EQ(used(more, kNow), 3u);
  Process less = reload(per_minute(6, 4), kNow);
  EXPECT_EQ(admitted(less, kNow), 1u);
}

// What limit_req would do that kept its excess exactly: used units, less what has flowed back.
struct Excess {
  double used = 0;
  double per_ns = 0;
  int64_t at = 0;

  void flow(int64_t now) {
    used = std::max(0.0, used - per_ns * static_cast<double>(now - at));
    at = now;
  }
};

TEST_F(TermsTest, UnitsFlowBackByTheRateInForceOverRandomReloadsWhileOldProcessesDrain) {
  LimitsOfEveryKind random(11);
  uint64_t decided = 0;
  for (uint64_t round = 0; round < 1'000 / kScale; ++round) {
    master_ = make_table<Table>(memory_);
    const uint64_t burst = 1 + random.below(20);
    const auto any_rate = [&] {
      return named(policy(1 + random.below(600), (random.one_in(3) ? 3600 : 60) * kSecond, burst));
    };
    int64_t now = kNow;
    std::vector<Process> processes = {reload(any_rate(), now)};
    Excess model{0, 16.0 / static_cast<double>(processes[0].limit.gcra.interval), now};
    Decision last;
    for (int step = 0; step < 60; ++step) {
      now += static_cast<int64_t>(random.below(static_cast<uint64_t>(
          std::max<int64_t>(1, random.one_in(2) ? last.retry_after_ns : last.reset_ns))));
      model.flow(now);
      if (random.one_in(8)) {
        processes.push_back(reload(any_rate(), now));
        model.per_ns = 16.0 / static_cast<double>(processes.back().limit.gcra.interval);
      }
      const size_t old =
          random.one_in(3) ? random.below(std::min<uint64_t>(3, processes.size())) : 0;
      const uint64_t cost = 1 + (random.one_in(3) ? random.below(burst) : 0);
      last = charge(processes[processes.size() - 1 - old], now, cost);
      const double over = model.used + static_cast<double>(cost) - static_cast<double>(burst);
      if (std::abs(over) > 1e-6) {
        ++decided;
        ASSERT_EQ(last.admit, over < 0) << "round " << round << ", step " << step << ": " << over;
        if (!last.admit) {
          ASSERT_NEAR(static_cast<double>(last.retry_after_ns), over / model.per_ns, 10'000)
              << step;
        }
      }
      model.used += last.admit ? static_cast<double>(cost) : 0;
    }
  }
  EXPECT_GT(decided, 50'000 / kScale);
}

TEST_F(TermsTest, AKeyThatNobodyTouchedIsCarriedOverSeveralReloads) {
  Process first = reload(per_minute(60, 10), kNow);
  ASSERT_EQ(admitted(first, kNow), 10u);
  reload(per_minute(1, 10), kNow + 2 * kSecondNs);                                 // 8 are left
  reload(per_minute(60, 10), kNow + 2 * kSecondNs + 2 * kMinuteNs);                // 6
  Process last = reload(per_minute(6, 10), kNow + 5 * kSecondNs + 2 * kMinuteNs);  // 3
  EXPECT_EQ(used(last, kNow + 5 * kSecondNs + 2 * kMinuteNs), 3u);
}

TEST_F(TermsTest, OfMoreReloadsThanAreRememberedNobodyIsGivenMoreThanABucket) {
  Process process = reload(per_minute(1), kNow);
  ASSERT_EQ(admitted(process, kNow), 5u);
  for (uint64_t i = 0; i < 30; ++i) {
    process = reload(per_minute(1 + i % 2), kNow);
  }
  EXPECT_LE(admitted(process, kNow), 5u);
  EXPECT_LE(charge(process, kNow).retry_after_ns, 5 * kMinuteNs);
}

TEST_F(TermsTest, WindowsOfAnotherPeriodKeepWhatIsCounted) {
  const int64_t noon = 20'000 * kDayNs + 12 * kHourNs;
  const std::pair<Policy, Policy> changes[] = {
      {fixed_window(10, Span::minute), fixed_window(100, Span::hour)},
      {fixed_window(10, Span::hour), fixed_window(100, Span::day)},
      {fixed_window(10, Span::day), fixed_window(100, Span::month)},
      {fixed_window(1000, Span::month), fixed_window(100, Span::day)},
      {sliding_window(10, Span::minute), sliding_window(100, Span::hour)},
      {sliding_window(10, Span::hour), sliding_window(100, Span::minute)},
      {sliding_window(10, Span::day), fixed_window(100, Span::day)},
      {fixed_window(10, Span::day), named(policy(100, kDay, 100))},
      {named(policy(10, kDay, 10)), fixed_window(100, Span::day)},
      {named(policy(10, kDay, 10)), sliding_window(100, Span::day)}};
  for (const auto& [from, to] : changes) {
    master_ = make_table<Table>(memory_);
    Process before = reload(from, noon);
    ASSERT_TRUE(charge(before, noon, 7).admit);
    Process after = reload(to, noon + kSecondNs);
    EXPECT_EQ(used(after, noon + kSecondNs), 7u);
    EXPECT_EQ(admitted(after, noon + kSecondNs), 93u);
  }
}

TEST_F(TermsTest, AMonthsCountIsOfTheDayOfTheChangeAndOfNoLater) {
  const int64_t noon = 20'000 * kDayNs + 12 * kHourNs;
  Process before = reload(fixed_window(1000, Span::month), noon);
  ASSERT_TRUE(charge(before, noon, 60).admit);
  Process after = reload(fixed_window(50, Span::day), noon + kSecondNs);
  EXPECT_FALSE(charge(after, noon + kHourNs).admit);
  EXPECT_EQ(used(after, noon + kDayNs), 0u);
  EXPECT_EQ(admitted(after, noon + kDayNs), 50u);
}

TEST_F(TermsTest, ALogsUnitsStayForAsLongAsTheNewWindow) {
  Process before = reload(sliding_log(4, kMinuteNs), kNow);
  ASSERT_TRUE(charge(before, kNow, 2).admit);
  ASSERT_TRUE(charge(before, kNow + 10 * kSecondNs, 2).admit);
  Process longer = reload(sliding_log(4, kHourNs), kNow + 20 * kSecondNs);
  EXPECT_EQ(charge(longer, kNow + 20 * kSecondNs).retry_after_ns, kHourNs - 20 * kSecondNs);
  EXPECT_EQ(used(longer, kNow + 2 * kMinuteNs), 4u);
  Process shorter = reload(sliding_log(4, 30 * kSecondNs), kNow + 20 * kSecondNs);
  EXPECT_EQ(used(shorter, kNow + 29 * kSecondNs), 4u);
  EXPECT_EQ(used(shorter, kNow + 30 * kSecondNs), 2u);
}

TEST_F(TermsTest, ALowerLimitOfALogCountsWhatTheOldOneLet) {
  Process before = reload(sliding_log(10, kMinuteNs), kNow);
  for (int64_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(charge(before, kNow + i * kSecondNs).admit);
  }
  Process after = reload(sliding_log(3, kMinuteNs), kNow + 10 * kSecondNs);
  EXPECT_EQ(charge(after, kNow + 10 * kSecondNs).retry_after_ns, kMinuteNs - 3 * kSecondNs)
      << "when eight have ended";
  EXPECT_EQ(admitted(after, kNow + kMinuteNs + 7 * kSecondNs - 1), 0u);
  EXPECT_EQ(admitted(after, kNow + kMinuteNs + 7 * kSecondNs), 1u);
}

TEST_F(TermsTest, LeasesAreHeldOverAReload) {
  Process before = reload(concurrency(3), kNow);
  ASSERT_TRUE(charge(before, kNow, 2).admit);
  Process after = reload(concurrency(2), kNow);
  EXPECT_FALSE(charge(after, kNow).admit);
}

TEST_F(TermsTest, WhatWasReservedBeforeIsGivenBackAsManyUnitsAfter) {
  for (const uint64_t amount : {1, 10, 600, 60'000}) {
    master_ = make_table<Table>(memory_);
    Process before = reload(per_minute(600, 1000), kNow);
    const Decision reserved = charge(before, kNow, 900);
    const Admitted admitted{reserved.next_state, before.table.generation()};
    Process after = reload(per_minute(amount, 1000), kNow);
    ASSERT_EQ(used(after, kNow), 900u);
    settle_one(before.table, before.limit, key(1), 900, 800, admitted, at(kNow));
    EXPECT_EQ(used(after, kNow), 800u) << "by an old process, at " << amount;
    settle_one(after.table, after.limit, key(1), 800, 100, admitted, at(kNow));
    EXPECT_EQ(used(after, kNow), 100u) << "by a new one, at " << amount;
    settle_one(before.table, before.limit, key(1), 100, 150, admitted, at(kNow));
    EXPECT_EQ(used(after, kNow), 150u) << "used more than it had reserved, at " << amount;
  }
}

TEST_F(TermsTest, ASlotThatCountsByTheNewRateIsNotGivenAwayThoughByTheOldOneItWereIdle) {
  Process before = reload(per_minute(60), kNow);
  ASSERT_EQ(admitted(before, kNow), 5u);
  Process after = reload(per_minute(1), kNow + kSecondNs);  // 4 used, of a minute each
  const Policy brief = policy(10'000'000, kSecond, 1);
  for (uint64_t i = 0; i < 100'000; ++i) {
    charge_one(after.table, brief, key(1000 + i), kNow + kMinuteNs + static_cast<int64_t>(i));
  }
  EXPECT_GT(after.table.evictions(), 0u);
  EXPECT_EQ(used(after, kNow + kMinuteNs + kSecondNs), 3u);
  const int64_t much_later = kNow + kDayNs;
  for (uint64_t i = 0; i < 100'000; ++i) {
    charge_one(after.table, brief, key(2000 + i), much_later + static_cast<int64_t>(i));
  }
  EXPECT_EQ(state_of(after.table, key(1)), 0u) << "but when it is over it goes";
}

TEST_F(TermsTest, AStrangersSlotIsNotTakenForOneOfTheLimit) {
  Process before = reload(per_minute(10), kNow);
  ASSERT_EQ(admitted(before, kNow), 5u);
  Process after = reload(per_minute(20), kNow);
  const Policy other = policy(10, 60 * kSecond, 5);  // of another name, whose rate is the same
  EXPECT_EQ(charge_one(after.table, other, key(2), kNow, 5), Outcome::admitted);
}

TEST_F(TermsTest, ARestartFromAFileWithAnotherRateKeepsWhatWasCounted) {
  Process before = reload(per_minute(30), kNow);
  ASSERT_EQ(admitted(before, kNow), 5u);
  reload(per_minute(60), kNow);
  const int file = memfd_create("snapshot", 0);
  ASSERT_TRUE(write_snapshot(file, master_, at(kNow)));
  ASSERT_EQ(lseek(file, 0, SEEK_SET), 0);
  SnapshotReader reader(file);
  auto head = reader.head();
  ASSERT_TRUE(head);
  auto table = Table::create(memory_.bytes(), head->secret);  // another boot's memory
  const Status body = reader.body(&*table);
  ASSERT_TRUE(body) << body.error().message;
  close(file);
  Process after = reload(per_minute(1), kNow + 2 * kSecondNs);
  EXPECT_EQ(used(after, kNow + 2 * kSecondNs), 3u) << "60 a minute until then";
  EXPECT_EQ(used(after, kNow + kMinuteNs), 3u);
  EXPECT_EQ(used(after, kNow + 2 * kSecondNs + kMinuteNs), 2u);
}

TEST_F(TermsTest, AReloadThatChangesNothingBeginsNoGeneration) {
  const Process first = reload(per_minute(10), kNow);
  const Process second = reload(per_minute(10, 7), kNow);
  EXPECT_EQ(second.table.generation(), first.table.generation()) << "a burst is no term";
  EXPECT_FALSE(first.table.is_stale());
  reload(per_minute(11), kNow);
  EXPECT_TRUE(first.table.is_stale());
}

}  // namespace
}  // namespace penstock::limit
