// The limits of what is behind a worker are never met, and used as far as they go.
#include "worker/queue/bound/pace.h"

#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <memory>
#include <random>

#include "shared/base/clock.h"
#include "worker/queue/store/pace_file.h"

namespace penstock::queue {
namespace {

using Unit = PaceLimit::Unit;
constexpr int64_t kWallNs = 1'700'000'000 * kNsPerSec;

PaceLimit rolling(uint64_t amount, int64_t length_ns, Unit unit = Unit::kRequests) {
  return {.unit = unit, .amount = amount, .length_ns = length_ns};
}
PaceLimit calendar(uint64_t amount, limit::Span span) {
  return {.amount = amount, .calendar = span};
}

class PaceTest : public testing::Test {
 protected:
  void set(const std::vector<PaceLimit>& limits, uint32_t at_once = 0) {
    records_.clear();
    std::vector<PaceRecord*> records;
    for (size_t i = 0; i < limits.size(); ++i) {
      records.push_back(records_.emplace_back(std::make_unique<PaceRecord>()).get());
    }
    pace_.set(limits, at_once, records);
    pace_.set_time({now_ns_, kWallNs});
  }
  bool is_open(uint64_t tokens = 1) { return pace_.opens_ns(tokens, now_ns_) <= now_ns_; }

  int64_t now_ns_ = 1000 * kNsPerSec;
  Pace pace_;
  std::vector<std::unique_ptr<PaceRecord>> records_;
};

// Whoever counts what arrived in each span sees no more than it allows, and nearly as much.
TEST_F(PaceTest, InNoSpanAreMoreAndNearlyAllAreUsed) {
  for (const auto& [amount, length_ns] : {std::pair{uint64_t{1}, kNsPerSec},
                                          {uint64_t{10}, 120 * kNsPerSec},
                                          {uint64_t{100}, kNsPerSec},
                                          {uint64_t{5000}, 10 * kNsPerSec}}) {
    set({rolling(amount, length_ns)});
    std::mt19937 random(7);
    std::deque<int64_t> arrived;
    const int64_t begun_ns = now_ns_;
    uint64_t total = 0;
    while (total < std::max<uint64_t>(1000, 3 * amount)) {
      now_ns_ = std::max(now_ns_, pace_.opens_ns(1, now_ns_));
      pace_.end(pace_.start(1, now_ns_), 1, now_ns_);
      ++total;
      // It may be late, less than is allowed for.
      const auto late_ns = static_cast<int64_t>(random() % Pace::late_ns(length_ns));
      arrived.push_back(now_ns_ + late_ns);
      std::sort(arrived.end() - std::min<ptrdiff_t>(arrived.size(), 64), arrived.end());
      while (arrived.front() <= arrived.back() - length_ns) {
        arrived.pop_front();
      }
      ASSERT_LE(arrived.size(), amount);
    }
    const auto windows = static_cast<double>(now_ns_ - begun_ns) / static_cast<double>(length_ns);
    const double allowed = (windows + 1) * static_cast<double>(amount);
    EXPECT_GE(static_cast<double>(total), 0.95 * allowed) << amount;
  }
}

TEST_F(PaceTest, TokensThatWereNotUsedAreGivenBackAndThoseBeyondAreCounted) {
  set({rolling(1000, 60 * kNsPerSec, Unit::kTokens)});
  const auto start = pace_.start(900, now_ns_);
  EXPECT_FALSE(is_open(200));
  pace_.end(start, 100, now_ns_);
  EXPECT_TRUE(is_open(900));
  pace_.end(pace_.start(100, now_ns_), 850, now_ns_);
  EXPECT_EQ(pace_.used(0, now_ns_), 950U);
  EXPECT_FALSE(is_open(100));
}

TEST_F(PaceTest, WhatCostsMoreThanALimitStartsWhenNothingOfItIsUsed) {
  set({rolling(1000, 60 * kNsPerSec, Unit::kTokens)});
  EXPECT_TRUE(is_open(5000));
  pace_.start(5000, now_ns_);
  EXPECT_FALSE(is_open(1));
  now_ns_ += 60 * kNsPerSec + Pace::kMostLateNs;
  EXPECT_TRUE(is_open(5000));
}

TEST_F(PaceTest, AJobThatWasNeverSentCountsNothing) {
  set({rolling(1, 60 * kNsPerSec), calendar(1, limit::Span::day)});
  pace_.take_back(pace_.start(1, now_ns_), now_ns_);
  EXPECT_TRUE(is_open());
  EXPECT_EQ(pace_.running(), 0U);
}

TEST_F(PaceTest, TheCalendarsQuotaOpensWithItsNextWindow) {
  set({calendar(3, limit::Span::minute)});  // kWallNs is 20 s into one
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(is_open());
    pace_.start(1, now_ns_);
  }
  EXPECT_EQ(pace_.opens_ns(1, now_ns_) - now_ns_, 40 * kNsPerSec);
  EXPECT_EQ(pace_.starts_ns(4, 4, now_ns_) - now_ns_, 100 * kNsPerSec) << "the window after it";
}

TEST_F(PaceTest, NoMoreRunAtOnce) {
  set({}, 2);
  const auto first = pace_.start(1, now_ns_);
  pace_.start(1, now_ns_);
  EXPECT_EQ(pace_.opens_ns(1, now_ns_), INT64_MAX);
  pace_.end(first, 1, now_ns_);
  EXPECT_TRUE(is_open());
}

// What is predicted is when it happens.
TEST_F(PaceTest, ThePredictedStartIsTheStart) {
  set({rolling(3, 10 * kNsPerSec)});
  pace_.start(1, now_ns_);
  now_ns_ += 2 * kNsPerSec;
  std::vector<int64_t> predicted;
  for (uint64_t job = 1; job <= 20; ++job) {
    predicted.push_back(pace_.starts_ns(job, job, now_ns_));
  }
  for (const int64_t at_ns : predicted) {
    now_ns_ = std::max(now_ns_, pace_.opens_ns(1, now_ns_));
    EXPECT_NEAR(static_cast<double>(now_ns_), static_cast<double>(at_ns), 0.05 * kNsPerSec);
    pace_.start(1, now_ns_);
  }
}

TEST_F(PaceTest, HoweverManyStartTheRecordIsOfOneSize) {
  set({rolling(1'000'000, 60 * kNsPerSec)});
  for (int i = 0; i < 1'000'000; ++i) {
    pace_.start(1, now_ns_ += 50'000);
  }
  EXPECT_EQ(pace_.used(0, now_ns_), 1'000'000U);
  EXPECT_FALSE(is_open());
}

class PaceFileTest : public testing::Test {
 protected:
  PaceFileTest() {
    char folder[] = "/tmp/pace.XXXXXX";
    folder_ = ::mkdtemp(folder);
  }
  ~PaceFileTest() override { std::filesystem::remove_all(folder_); }
  // Used of a limit of 100 in 60 s, in a new life that begins at these times.
  uint64_t used(int64_t steady_ns, int64_t wall_ns) {
    auto file = PaceFile::open(folder_ + "/paces", steady_ns, wall_ns);
    EXPECT_TRUE(file) << file.error().message;
    Pace pace;
    pace.set({rolling(100, 60 * kNsPerSec)}, 0, {file->find({1, 2})});
    return pace.used(0, steady_ns);
  }
  void use(int64_t steady_ns, int64_t wall_ns, int starts) {
    auto file = PaceFile::open(folder_ + "/paces", steady_ns, wall_ns);
    Pace pace;
    pace.set({rolling(100, 60 * kNsPerSec)}, 0, {file->find({1, 2})});
    for (int i = 0; i < starts; ++i) {
      pace.start(1, steady_ns);
    }
    file->note_time(steady_ns, wall_ns);
  }
  std::string folder_;
};

TEST_F(PaceFileTest, WhatWasUsedIsRememberedOverARestart) {
  use(1000 * kNsPerSec, kWallNs, 7);
  EXPECT_EQ(used(1010 * kNsPerSec, kWallNs + 10 * kNsPerSec), 7U);
  EXPECT_EQ(used(1061 * kNsPerSec, kWallNs + 61 * kNsPerSec), 0U);
}

TEST_F(PaceFileTest, AndOverAStartOfTheMachine) {
  use(1000 * kNsPerSec, kWallNs, 7);
  EXPECT_EQ(used(5 * kNsPerSec, kWallNs + 30 * kNsPerSec), 7U);
  EXPECT_EQ(used(36 * kNsPerSec, kWallNs + 61 * kNsPerSec), 0U);
}

TEST_F(PaceFileTest, AClockThatWasSetBackMakesNothingLastLonger) {
  use(1000 * kNsPerSec, kWallNs, 7);
  EXPECT_EQ(used(5 * kNsPerSec, kWallNs - 3600 * kNsPerSec), 7U);
  EXPECT_EQ(used(70 * kNsPerSec, kWallNs - 3540 * kNsPerSec), 0U);
}

TEST_F(PaceFileTest, AFileOfSomethingElseIsBegunAnew) {
  FILE* const file = std::fopen((folder_ + "/paces").c_str(), "w");
  std::fputs("something else", file);
  std::fclose(file);
  EXPECT_EQ(used(1000 * kNsPerSec, kWallNs), 0U);
}

TEST_F(PaceFileTest, NoMoreAreRememberedThanThereArePlaces) {
  auto file = PaceFile::open(folder_ + "/paces", 1, kWallNs);
  for (uint64_t i = 1; i <= PaceFile::kPlaces; ++i) {
    ASSERT_NE(file->find({i, i}), nullptr);
  }
  EXPECT_EQ(file->find({99, 99}), nullptr);
  file->forget_users();
  EXPECT_NE(file->find({99, 99}), nullptr);
}

}  // namespace
}  // namespace penstock::queue
