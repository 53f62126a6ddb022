// Requests under limits of every algorithm at once: each interleaving in which one runs at a step
// of another, and one that is killed at any of its steps.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "tests/unit/limit/script.h"

namespace penstock::limit {
namespace {

constexpr int64_t kLength = 60 * int64_t{kSecond};

// Five limits, one of each algorithm, each with a key of its own.
class MixedInterleavingTest : public testing::Test {
 protected:
  using Costs = std::vector<std::pair<size_t, uint64_t>>;  // limit, units

  std::vector<Charge> charges(const Costs& costs) const {
    std::vector<Charge> all;
    for (const auto& [limit, cost] : costs) {
      all.push_back({&limits_[limit], key(limit), cost});
    }
    return all;
  }
  uint64_t used(size_t limit, int64_t now = kNow) const {
    return units_used(table_, limits_[limit], key(limit), now);
  }

  // The requests one inside another at every pair of steps: whatever came of them, each limit holds
  // what was admitted and no more, and nothing once that is given back.
  void all_interleavings(const std::vector<Costs>& requests, const std::function<void()>& prepare) {
    bool more = true;
    for (unsigned first = 0; more; ++first) {
      more = false;
      for (unsigned second = 0;; ++second) {
        const unsigned interrupted = interleave(requests, {first, second}, prepare);
        if (HasFailure()) {
          FAIL() << "stopped at steps " << first << ", " << second;
        }
        interruptions_ += interrupted;
        more |= interrupted > 0;
        if (interrupted < 2) {
          break;
        }
      }
    }
  }

  unsigned interleave(const std::vector<Costs>& requests, const std::vector<unsigned>& stops,
                      const std::function<void()>& prepare) {
    table_ = make_table<TestTable>(memory_);
    prepare();
    uint64_t before[5];
    for (size_t i = 0; i < 5; ++i) {
      before[i] = used(i);
    }
    std::vector<std::vector<Charge>> done;
    done.reserve(requests.size());
    for (const Costs& costs : requests) {
      done.push_back(charges(costs));
    }
    std::vector<Outcome> outcomes(3, Outcome::refused);
    Script script;
    script.stops = stops;
    script.request = [&](size_t depth) {
      outcomes[depth] = charge_all(table_, std::span(done[depth]), at(kNow));
    };
    script.run();

    uint64_t expected[5];
    std::copy(std::begin(before), std::end(before), expected);
    for (size_t depth = 0; depth < done.size(); ++depth) {
      for (size_t c = 0; c < done[depth].size(); ++c) {
        const bool admitted = outcomes[depth] == Outcome::admitted;
        EXPECT_EQ(done[depth][c].charged, admitted && done[depth][c].cost != 0);
        expected[requests[depth][c].first] += admitted ? done[depth][c].cost : 0;
      }
      admitted_ += outcomes[depth] == Outcome::admitted ? 1 : 0;
    }
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_LE(expected[i], limits_[i].limit) << "limit " << i;
      EXPECT_EQ(used(i), expected[i]) << "limit " << i;
    }
    EXPECT_EQ(table_.usage(at(kNow)).pending, 0u);
    for (auto& request : done) {
      refund_all(table_, std::span<const Charge>(request), at(kNow));
    }
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(used(i), before[i]) << "given back, limit " << i;
    }
    return script.interrupted;
  }

  const Policy limits_[5] = {policy(3, 60 * kSecond), fixed_window(3, Span::minute),
                             sliding_window(3, Span::minute), concurrency(3),
                             sliding_log(3, kLength)};
  SharedMemory memory_{TestTable::bytes_for(128)};
  TestTable table_ = make_table<TestTable>(memory_);
  unsigned interruptions_ = 0;
  unsigned admitted_ = 0;
};

TEST_F(MixedInterleavingTest, NoLimitAdmitsMoreAndRollBacksLeaveNothing) {
  const std::vector<std::vector<Costs>> requests = {
      {{{0, 2}, {1, 2}, {2, 2}, {3, 2}, {4, 2}},
       {{4, 2}, {3, 2}, {2, 2}, {1, 2}, {0, 2}},
       {{2, 1}, {0, 1}, {4, 1}, {1, 1}, {3, 1}}},
      {{{0, 1}, {4, 3}}, {{4, 1}, {2, 1}}, {{2, 3}, {4, 2}}},
      {{{4, 2}, {1, 2}, {3, 2}}, {{1, 2}, {4, 1}}, {{3, 2}, {0, 2}}},
      {{{3, 1}, {2, 2}, {4, 2}}, {{4, 2}, {3, 2}}, {{2, 2}, {3, 2}}},
  };
  for (const auto& three : requests) {
    all_interleavings(three, [] {});
    all_interleavings(three, [this] {  // the keys are there already, each with a unit used
      auto one_each = charges({{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}});
      ASSERT_EQ(charge_all(table_, std::span(one_each), at(kNow)), Outcome::admitted);
    });
  }
  EXPECT_GT(interruptions_, 2000u);
  EXPECT_GT(admitted_, 1000u);
}

TEST_F(MixedInterleavingTest, ALogsUnitsAreTakenOnceEachHoweverManyWantThem) {
  for (const uint64_t cost : {1, 2, 3}) {
    all_interleavings({{{4, cost}}, {{4, cost}}, {{4, cost}}}, [] {});
    all_interleavings({{{4, cost}, {4, 1}}, {{4, cost}}, {{4, 1}, {4, cost}}}, [] {});
  }
}

// A refusal that another's give-back made needless is the only thing that may differ from some
// order in which the requests came one after another: with room for all, all are admitted.
TEST_F(MixedInterleavingTest, WithRoomForAllAllAreAdmitted) {
  const Costs each = {{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}};
  const Costs other = {{4, 1}, {2, 1}, {0, 1}, {3, 1}, {1, 1}};
  for (unsigned first = 0; first < 60; ++first) {
    for (unsigned second = 0; second < 60; second += 7) {
      admitted_ = 0;
      const unsigned interrupted = interleave({each, other, each}, {first, second}, [] {});
      ASSERT_EQ(admitted_, 1 + interrupted) << first << ", " << second;
    }
  }
}

// One request is stopped while it settles or renews; another charges meanwhile.
TEST_F(MixedInterleavingTest, SettlingAndRenewingLoseNoUpdate) {
  const int64_t later = kNow + kLeaseNs;
  for (size_t i = 0; i < 5 * 2 * 12; ++i) {
    const size_t limit = i % 5;
    const uint64_t used_up = i / 5 % 2 == 0 ? 2 : 0;  // of one that was reserved
    table_ = make_table<TestTable>(memory_);
    auto held = charges({{limit, 1}});
    ASSERT_EQ(charge_all(table_, std::span(held), at(kNow)), Outcome::admitted);
    const uint64_t state = held[0].decision.next_state;
    const bool lease = limits_[limit].algorithm == Algorithm::concurrency;
    const int64_t now = lease ? later : kNow;
    Outcome other = Outcome::refused;
    Script script;
    script.stops = {static_cast<unsigned>(i / 10)};
    script.request = [&](size_t depth) {
      if (depth == 1) {
        other = charge_one(table_, limits_[limit], key(limit), now);
      } else if (lease) {
        renew_one(table_, limits_[limit], key(limit), 1, state, at(now));
      } else {
        settle_one(table_, limits_[limit], key(limit), 1, used_up, state, at(now));
      }
    };
    script.run();
    const uint64_t own = lease ? 1 : used_up;
    EXPECT_EQ(used(limit, now), own + (other == Outcome::admitted ? 1 : 0)) << limit;
    if (lease) {
      EXPECT_EQ(used(limit, now + kLeaseNs), used(limit, now)) << "renewed, it lasts a window more";
    }
  }
}

// A process killed at any step of a request under all five: what it had charged stays charged until
// it flows back, ends or lapses, no more; and the table goes on.
TEST_F(MixedInterleavingTest, AProcessKilledAtAnyStepLeavesNothingThatStays) {
  const Costs costs = {{4, 2}, {0, 2}, {3, 2}, {1, 2}, {2, 2}};
  bool killed = true;
  unsigned stop = 0;
  for (; killed; ++stop) {
    table_ = make_table<TestTable>(memory_);
    const pid_t child = fork();
    if (child == 0) {
      auto request = charges(costs);
      Script script;
      script.stops = {stop};
      script.request = [&](size_t depth) {
        if (depth == 1) {
          _exit(9);
        }
        charge_all(table_, std::span(request), at(kNow));
      };
      script.run();
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    killed = WEXITSTATUS(status) == 9;
    EXPECT_LE(table_.usage(at(kNow)).pending, 1u);
    for (size_t i = 0; i < 5; ++i) {
      const uint64_t left = used(i);
      EXPECT_LE(left, 2u);
      uint64_t admitted = 0;
      while (charge_one(table_, limits_[i], key(i)) == Outcome::admitted) {
        ++admitted;
      }
      EXPECT_EQ(left + admitted, limits_[i].limit) << "killed at step " << stop << ", limit " << i;
      EXPECT_EQ(used(i, kNow + 2 * kLength), 0u);
    }
    // Every slot is there for whoever needs it.
    const int64_t later = kNow + 2 * kLength;
    EXPECT_EQ(table_.usage(at(later)).live, 0u);
  }
  EXPECT_GT(stop, 20u);
}

}  // namespace
}  // namespace penstock::limit
