// Windows against slow, plain models of them.

#include "shared/limit/window.h"

#include <time.h>

#include <algorithm>
#include <map>

#include "tests/unit/limit/limit_fixture.h"

namespace penstock::limit {
namespace {

__extension__ using Wide = __int128;

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr Span kCalendar[] = {Span::second, Span::minute, Span::hour,
                              Span::day,    Span::week,   Span::month};
constexpr Span kSliding[] = {Span::second, Span::minute, Span::hour,
                             Span::day,    Span::week,   Span::days30};

// The end of a calendar window, by the C library's calendar. `windows` later or earlier than the
// one in which wall_ns lies.
int64_t calendar_end(Span span, int64_t wall_ns, int windows = 0) {
  int64_t seconds = wall_ns / kSecondNs;
  if (wall_ns % kSecondNs < 0) {
    --seconds;
  }
  const time_t at = seconds;
  tm civil;
  gmtime_r(&at, &civil);
  const int next = windows + 1;
  switch (span) {
    case Span::month:
      civil.tm_mon += next;
      civil.tm_mday = 1;
      break;
    case Span::week:
      civil.tm_mday += next * 7 - (civil.tm_wday + 6) % 7;
      break;
    case Span::day:
      civil.tm_mday += next;
      break;
    case Span::hour:
      civil.tm_hour += next;
      break;
    case Span::minute:
      civil.tm_min += next;
      break;
    default:
      civil.tm_sec += next;
      break;
  }
  if (span >= Span::day) {
    civil.tm_hour = 0;
  }
  if (span >= Span::hour) {
    civil.tm_min = 0;
  }
  if (span >= Span::minute) {
    civil.tm_sec = 0;
  }
  return int64_t{timegm(&civil)} * kSecondNs;
}

int64_t length_of(Span span) {
  switch (span) {
    case Span::second:
      return kSecondNs;
    case Span::minute:
      return 60 * kSecondNs;
    case Span::hour:
      return 3600 * kSecondNs;
    case Span::day:
      return 86'400 * kSecondNs;
    case Span::week:
      return 7 * 86'400 * kSecondNs;
    default:
      return 30 * 86'400 * kSecondNs;
  }
}

int64_t utc(int year, int month, int day, int hour = 0, int minute = 0, int second = 0) {
  tm civil{};
  civil.tm_year = year - 1900;
  civil.tm_mon = month - 1;
  civil.tm_mday = day;
  civil.tm_hour = hour;
  civil.tm_min = minute;
  civil.tm_sec = second;
  return int64_t{timegm(&civil)} * kSecondNs;
}

// One key, and what happens to it at times of the test's choosing.
struct Key {
  Policy limit;
  uint64_t state = 0;

  Decision charge(int64_t now_ns, uint64_t cost = 1) {
    const Decision decision = decide(limit, state, at(now_ns), cost);
    state = decision.next_state;
    return decision;
  }
};

struct Random {
  std::mt19937_64 random{4711};

  uint64_t below(uint64_t n) { return random() % n; }
  bool one_in(uint64_t n) { return below(n) == 0; }
  template <class T, size_t kSize>
  T of(const T (&choices)[kSize]) {
    return choices[below(kSize)];
  }
  uint64_t cost(uint64_t limit) {
    switch (below(6)) {
      case 0:
        return below(limit + 3);
      case 1:
        return 1 + below(1 + limit / 3);
      default:
        return 1;
    }
  }
};

TEST(FixedWindowTest, EndsWhereTheCalendarSaysOnEveryDayOfTwoCenturies) {
  Random random;
  for (const Span span : kCalendar) {
    const Policy limit = fixed_window(5, span);
    const int64_t step = (span >= Span::day ? 1 : 5) * static_cast<int64_t>(kScale);
    for (int64_t day = 0; day < 84'000; day += step) {
      const int64_t begin = day * length_of(Span::day);
      const auto within = static_cast<int64_t>(random.below(length_of(Span::day)));
      for (const int64_t wall : {begin, begin + length_of(Span::day) - 1, begin + within}) {
        ASSERT_EQ(decide(limit, 0, at(wall), 1).reset_ns, calendar_end(span, wall) - wall) << wall;
      }
    }
  }
}

TEST(FixedWindowTest, FebruaryIsAsLongAsTheYearSays) {
  const struct {
    int year, days;
  } years[] = {{2000, 29}, {2023, 28}, {2024, 29}, {2100, 28}, {2200, 28}};
  for (const auto& [year, days] : years) {
    Key key{fixed_window(1, Span::month)};
    const int64_t last = utc(year, 2, days, 23, 59, 59);
    EXPECT_TRUE(key.charge(utc(year, 2, 1)).admit) << year;
    EXPECT_EQ(key.charge(last).retry_after_ns, kSecondNs) << year;
    EXPECT_TRUE(key.charge(utc(year, 3, 1)).admit) << year;
  }
}

TEST(FixedWindowTest, WeeksBeginOnMonday) {
  Key key{fixed_window(1, Span::week)};
  EXPECT_TRUE(key.charge(utc(2024, 12, 30)).admit) << "a Monday";
  EXPECT_FALSE(key.charge(utc(2025, 1, 5, 23, 59, 59)).admit) << "the Sunday after";
  EXPECT_TRUE(key.charge(utc(2025, 1, 6)).admit);
}

TEST(FixedWindowTest, AYearsTurnEndsEveryWindowButTheWeek) {
  for (const Span span : kCalendar) {
    Key key{fixed_window(2, span)};
    const int64_t turn = utc(2026, 1, 1);
    EXPECT_TRUE(key.charge(turn - 1, 2).admit);
    EXPECT_EQ(key.charge(turn).admit, span != Span::week);
  }
}

// The slow model of a fixed window: its end tells which it is; nothing wraps.
struct FixedModel {
  Span span;
  uint64_t limit;
  bool any = false;  // counted, in windows of `counted`
  Span counted = Span::second;
  int64_t end = 0;
  uint64_t count = 0;

  int ahead_at_most() const { return span == Span::second ? 3600 : span == Span::minute ? 60 : 1; }
  void advance(int64_t wall) {
    const int64_t present = calendar_end(span, wall);
    const bool goes_on = any && counted == span && end >= present &&
                         end <= calendar_end(span, wall, ahead_at_most());
    if (!goes_on) {
      end = present;
      count = 0;
    }
  }
  void add(uint64_t cost) {
    count += cost;
    counted = span;
    any = true;
  }
};

// Somewhere around the place where the numbers of a span's windows wrap round.
int64_t near_wrap(Random& random, Span span) {
  const struct {
    Span span;
    int64_t wraps_at;  // a multiple of what its index counts, in windows, after 2020
  } wraps[] = {{Span::second, int64_t{200} << 23}, {Span::minute, int64_t{220} << 17},
               {Span::hour, int64_t{60} << 13},    {Span::day, int64_t{40} << 9},
               {Span::week, int64_t{22} << 7},     {Span::month, 0}};
  for (const auto& wrap : wraps) {
    if (wrap.span == span && span != Span::month) {
      return wrap.wraps_at * length_of(span) -
             static_cast<int64_t>(random.below(30)) * length_of(span);
    }
  }
  return utc(2026, 1, 1) + static_cast<int64_t>(random.below(900)) * length_of(Span::day);
}

TEST(FixedWindowTest, AgreesWithACountOfEachWindowOverRandomHistories) {
  Random random;
  for (uint64_t round = 0; round < 3'000 / kScale; ++round) {
    const Span span = random.of(kCalendar);
    Key key{fixed_window(1 + random.below(12), span)};
    FixedModel model{span, key.limit.limit};
    int64_t now = near_wrap(random, span);
    struct Admitted {
      Span span;
      int64_t end;
      uint64_t state, cost;
    };
    std::vector<Admitted> admitted;
    const auto length = static_cast<uint64_t>(length_of(span));
    for (int step = 0; step < 60; ++step) {
      switch (random.below(12)) {
        case 0:
          now += static_cast<int64_t>(random.below(8) * length);
          break;
        case 1:  // stepped back, within what is taken for a step
          now -= static_cast<int64_t>(random.below(length));
          break;
        case 2:  // and far back
          now -= static_cast<int64_t>(random.below(5) * length);
          break;
        case 3:
          now = calendar_end(span, now) - static_cast<int64_t>(random.below(2));
          break;
        default:
          now += static_cast<int64_t>(random.below(length / 8 + 1));
      }
      if (random.one_in(25)) {  // a reload
        model.limit = 1 + random.below(12);
        model.span = random.one_in(3) ? random.of(kCalendar) : model.span;
        key.limit = fixed_window(model.limit, model.span);
      }
      if (random.one_in(6) && !admitted.empty()) {
        const Admitted& one = admitted[random.below(admitted.size())];
        const uint64_t back = 1 + random.below(one.cost);
        key.state = refund(key.limit, key.state, one.state, back, at(now));
        if (one.span == key.limit.window.span && one.span == model.counted &&
            one.end == model.end) {
          model.count -= std::min(model.count, back);
          model.any = key.state != 0;  // second 0 with a count of 0 is the word of an unused key
        }
        continue;
      }
      const uint64_t cost = random.cost(model.limit);
      FixedModel next = model;  // kept if something is counted
      next.advance(now);
      if (random.one_in(12)) {
        key.state = overdraw(key.limit, key.state, cost, at(now));
        next.add(cost);
        model = next;
        continue;
      }
      const Decision decision = key.charge(now, cost);
      const uint64_t room = next.count < next.limit ? next.limit - next.count : 0;
      ASSERT_EQ(decision.admit, cost <= room);
      if (decision.admit && cost != 0) {
        next.add(cost);
        model = next;
        admitted.push_back({model.span, model.end, decision.next_state, cost});
      }
      ASSERT_EQ(decision.remaining, room - (decision.admit ? cost : 0));
      ASSERT_EQ(decision.reset_ns, next.count == 0 ? 0 : next.end - now);
      if (!decision.admit) {
        ASSERT_EQ(decision.retry_after_ns, cost > next.limit ? kNever : next.end - now);
      }
      if (admitted.size() > 3) {
        admitted.erase(admitted.begin());  // so old that its window's number may come again
      }
    }
  }
}

TEST(FixedWindowTest, AClockSteppedBackGivesNoQuotaTwice) {
  const struct {
    Span span;
    int64_t step;
  } steps[] = {{Span::second, 3600 * kSecondNs},     {Span::minute, 3600 * kSecondNs},
               {Span::hour, 3600 * kSecondNs},       {Span::day, 86'400 * kSecondNs},
               {Span::week, 7 * 86'400 * kSecondNs}, {Span::month, 28 * 86'400 * kSecondNs}};
  for (const auto& [span, step] : steps) {
    Key key{fixed_window(3, span)};
    const int64_t begin = calendar_end(span, utc(2026, 3, 1, 5));
    ASSERT_TRUE(key.charge(begin, 3).admit);
    for (const int64_t back : {int64_t{1}, step / 2, step}) {
      const Decision refused = key.charge(begin - back);
      EXPECT_FALSE(refused.admit) << static_cast<int>(span) << " " << back;
      EXPECT_EQ(refused.retry_after_ns, calendar_end(span, begin) - begin + back);
    }
    EXPECT_TRUE(key.charge(calendar_end(span, begin)).admit);
  }
}

TEST(FixedWindowTest, AClockThatWasDaysAheadLocksNobodyOut) {
  for (const Span span : {Span::second, Span::minute, Span::hour}) {
    Key key{fixed_window(1, span)};
    ASSERT_TRUE(key.charge(utc(2026, 3, 9), 1).admit);
    EXPECT_TRUE(key.charge(utc(2026, 3, 1), 1).admit);
    EXPECT_FALSE(key.charge(utc(2026, 3, 1), 1).admit);
  }
}

// The slow model of the sliding window: a count for every window there was.
struct SlidingModel {
  int64_t length;
  uint64_t limit;
  std::map<int64_t, uint64_t> counts;
  int64_t latest = 0;  // the window that was counted in last

  int64_t window(int64_t now) const { return std::max(now / length, latest); }
  uint64_t in(int64_t window) const {
    const auto found = counts.find(window);
    return found == counts.end() ? 0 : found->second;
  }
  // In units x ns.
  Wide room(int64_t now) const {
    const int64_t present = window(now);
    const int64_t elapsed = std::max<int64_t>(0, now - present * length);
    return Wide{limit} * length - Wide{in(present - 1)} * (length - elapsed) -
           Wide{in(present)} * length;
  }
  void count(int64_t now, uint64_t cost) {
    latest = window(now);
    counts[latest] += cost;
  }
};

TEST(SlidingWindowTest, AgreesWithExactArithmeticOverRandomHistories) {
  Random random;
  for (uint64_t round = 0; round < 3'000 / kScale; ++round) {
    const Span span = random.of(kSliding);
    Key key{sliding_window(1 + random.below(40), span)};
    // A week begins on Monday here too; one that begins with the clock is the same but for that.
    const int64_t shift = span == Span::week ? 3 * length_of(Span::day) : 0;
    SlidingModel model{length_of(span), key.limit.limit};
    const auto length = static_cast<uint64_t>(model.length);
    int64_t now = static_cast<int64_t>(random.below(100) * length);
    struct Admitted {
      int64_t window;
      uint64_t state, cost;
    };
    std::vector<Admitted> admitted;
    for (int step = 0; step < 80; ++step) {
      now += static_cast<int64_t>(random.one_in(10)  ? random.below(3 * length)
                                  : random.one_in(3) ? random.below(length / 5)
                                                     : random.below(3));
      const int64_t stale = random.one_in(5) ? static_cast<int64_t>(random.below(1000)) : 0;
      const int64_t clock = std::max<int64_t>(0, now - stale);
      if (random.one_in(25)) {
        model.limit = 1 + random.below(40);
        key.limit = sliding_window(model.limit, span);
      }
      if (random.one_in(6) && !admitted.empty()) {
        Admitted& one = admitted[random.below(admitted.size())];
        const uint64_t back = random.below(one.cost + 1);
        one.cost -= back;
        key.state = refund(key.limit, key.state, one.state, back, at(clock));
        model.counts[one.window] -= back;
        continue;
      }
      const uint64_t cost = random.cost(model.limit);
      if (random.one_in(12)) {
        key.state = overdraw(key.limit, key.state, cost, at(clock));
        model.count(clock + shift, cost);
        continue;
      }
      const Wide room = model.room(clock + shift);
      const Decision decision = key.charge(clock, cost);
      ASSERT_EQ(decision.admit, cost == 0 || Wide{cost} * model.length <= room);
      const Wide left = decision.admit ? room - Wide{cost} * model.length : room;
      ASSERT_EQ(Wide{decision.remaining}, left > 0 ? left / model.length : 0);
      if (decision.admit && cost != 0) {
        model.count(clock + shift, cost);
        admitted.push_back({model.latest, decision.next_state, cost});
      }
    }
  }
}

TEST(SlidingWindowTest, TheWindowBeforeFadesEvenly) {
  Key key{sliding_window(100, Span::minute)};
  const int64_t begin = 1000 * length_of(Span::minute);
  ASSERT_TRUE(key.charge(begin, 100).admit);
  EXPECT_EQ(key.charge(begin + 60 * kSecondNs, 0).remaining, 0u);
  EXPECT_EQ(key.charge(begin + 75 * kSecondNs, 0).remaining, 25u);
  EXPECT_EQ(key.charge(begin + 120 * kSecondNs, 0).remaining, 100u);
}

TEST(SlidingWindowTest, AMonthIsThirtyDaysOfTheSteadyClock) {
  Key key{sliding_window(1, Span::month)};
  EXPECT_EQ(key.limit.window.span, Span::days30);
  const Instant early{kNow, utc(2026, 1, 31)};
  const Instant later{kNow + 1, utc(2026, 5, 1)};
  key.state = decide(key.limit, key.state, early, 1).next_state;
  EXPECT_FALSE(decide(key.limit, key.state, later, 1).admit) << "the wall clock means nothing";
}

// The slow model of leases: each by itself.
struct LeaseModel {
  struct Lease {
    int64_t window;  // in which it was last renewed
    uint64_t held_state, cost;
  };
  std::vector<Lease> leases;
  int64_t present = 0;  // the latest window in which anything was counted

  uint64_t held(int64_t window) const {
    uint64_t sum = 0;
    for (const Lease& lease : leases) {
      sum += lease.window + 1 >= window ? lease.cost : 0;
    }
    return sum;
  }
};

TEST(ConcurrencyTest, AgreesWithLeasesKeptOneByOneOverRandomHistories) {
  Random random;
  for (uint64_t round = 0; round < 3'000 / kScale; ++round) {
    Key key{concurrency(1 + random.below(12))};
    LeaseModel model;
    // Around the place where the windows' numbers wrap round.
    int64_t now = (int64_t{3} << 21) * kLeaseNs - static_cast<int64_t>(random.below(60) * kSecond);
    for (int step = 0; step < 120; ++step) {
      now += static_cast<int64_t>(random.below(random.one_in(8) ? 11 * kSecond : kSecond));
      // Not older than the present window's begin: a window, once over, is over for all.
      const auto stale = static_cast<int64_t>(random.one_in(4) ? random.below(kSecond) : 0);
      const int64_t clock = now - stale;
      if (random.one_in(40)) {
        key.limit = concurrency(1 + random.below(12));
      }
      const uint64_t limit = key.limit.limit;
      const size_t which = model.leases.empty() ? 0 : random.below(model.leases.size());
      if (!model.leases.empty() && random.one_in(3)) {
        LeaseModel::Lease& lease = model.leases[which];
        model.present = std::max(model.present, clock / kLeaseNs);
        key.state = renew(key.limit.window, key.state, lease.held_state, lease.cost, at(clock));
        lease.held_state = key.state;
        lease.window = model.present;
      } else if (!model.leases.empty() && random.one_in(3)) {
        const LeaseModel::Lease lease = model.leases[which];
        key.state = refund(key.limit, key.state, lease.held_state, lease.cost, at(clock));
        model.leases.erase(model.leases.begin() + static_cast<ptrdiff_t>(which));
      } else {
        const uint64_t cost = random.cost(limit);
        const Decision decision = key.charge(clock, cost);
        const int64_t present = std::max(model.present, clock / kLeaseNs);
        const uint64_t held = model.held(present);
        const uint64_t room = held < limit ? limit - held : 0;
        ASSERT_EQ(decision.admit, cost <= room) << step;
        ASSERT_EQ(decision.remaining, room - (decision.admit ? cost : 0));
        if (decision.admit && cost != 0) {
          model.present = present;
          model.leases.push_back({present, decision.next_state, cost});
        }
      }
    }
  }
}

TEST(ConcurrencyTest, WhatAKilledHolderHadComesBackWithinTwoWindows) {
  Key key{concurrency(2)};
  const int64_t begin = 1000 * kLeaseNs;
  ASSERT_TRUE(key.charge(begin + kSecondNs, 2).admit);
  EXPECT_EQ(key.charge(begin + kSecondNs).retry_after_ns, 9 * kSecondNs);
  EXPECT_FALSE(key.charge(begin + 2 * kLeaseNs - 1).admit);
  EXPECT_TRUE(key.charge(begin + 2 * kLeaseNs).admit);
}

TEST(ConcurrencyTest, AHolderThatRenewsKeepsItsSlotForAsLongAsItLikes) {
  Key key{concurrency(1)};
  uint64_t held = key.charge(kNow).next_state;
  int64_t now = kNow;
  for (int i = 0; i < 1000; ++i) {
    now += kLeaseNs / 2;
    ASSERT_FALSE(key.charge(now).admit) << i;
    held = key.state = renew(key.limit.window, key.state, held, 1, at(now));
  }
  key.state = refund(key.limit, key.state, held, 1, at(now));
  EXPECT_TRUE(key.charge(now).admit);
}

TEST(ConcurrencyTest, AReleaseAfterTheLeaseLapsedFreesNobodyElses) {
  Key key{concurrency(1)};
  const int64_t begin = 1000 * kLeaseNs;
  const uint64_t stalled = key.charge(begin).next_state;
  ASSERT_TRUE(key.charge(begin + 2 * kLeaseNs).admit);
  key.state = refund(key.limit, key.state, stalled, 1, at(begin + 2 * kLeaseNs));
  EXPECT_FALSE(key.charge(begin + 2 * kLeaseNs).admit);
}

TEST(ConcurrencyTest, AStalledHolderThatGoesOnIsCountedAgain) {
  Key key{concurrency(2)};
  const int64_t begin = 1000 * kLeaseNs;
  const uint64_t stalled = key.charge(begin).next_state;
  const int64_t later = begin + 3 * kLeaseNs;
  ASSERT_TRUE(key.charge(later).admit);
  key.state = renew(key.limit.window, key.state, stalled, 1, at(later));
  EXPECT_EQ(used(key.limit.window, key.state, at(later)), 2u);
  EXPECT_FALSE(key.charge(later).admit);
}

TEST(WindowTest, AnotherPeriodCountsAnewAndTheOldAdmissionsRefundNothing) {
  Key key{fixed_window(3, Span::hour)};
  const uint64_t admitted = key.charge(kNow, 3).next_state;
  key.limit = fixed_window(3, Span::day);
  ASSERT_TRUE(key.charge(kNow, 3).admit);
  key.state = refund(key.limit, key.state, admitted, 3, at(kNow));
  EXPECT_FALSE(key.charge(kNow).admit);
}

TEST(WindowTest, ALowerLimitCountsWhatWasUsedAndAHigherOneAddsTheDifference) {
  for (const auto& make : {&fixed_window, &sliding_window}) {
    Key key{make(10, Span::hour)};
    ASSERT_TRUE(key.charge(kNow, 8).admit);
    key.limit = make(5, Span::hour);
    EXPECT_EQ(key.charge(kNow, 0).remaining, 0u);
    EXPECT_FALSE(key.charge(kNow, 1).admit);
    key.limit = make(20, Span::hour);
    EXPECT_EQ(key.charge(kNow, 0).remaining, 12u);
  }
}

TEST(WindowTest, DebtIsCountedInTheWindowItWasMadeIn) {
  Key key{fixed_window(10, Span::minute)};
  key.state = overdraw(key.limit, key.state, 25, at(kNow));
  EXPECT_EQ(key.charge(kNow, 0).remaining, 0u);
  key.limit = fixed_window(30, Span::minute);
  EXPECT_EQ(key.charge(kNow, 0).remaining, 5u);
}

TEST(WindowTest, ACountAsLargeAsTheWordHoldsStaysThere) {
  for (const Span span : kSliding) {
    for (const Policy& limit :
         {fixed_window(9, span == Span::days30 ? Span::month : span), sliding_window(9, span)}) {
      uint64_t state = 0;
      for (int i = 0; i < 3; ++i) {
        state = overdraw(limit, state, ~uint64_t{0}, at(kNow));
        EXPECT_FALSE(decide(limit, state, at(kNow), 1).admit);
      }
      EXPECT_EQ(state, overdraw(limit, state, 1, at(kNow))) << "nothing spills into the number";
    }
  }
}

TEST(WindowTest, LimitsThatCannotBeCountedAreRefusedWithWhatWouldBeRight) {
  const auto why = [](const Result<WindowPolicy>& made) {
    return made ? std::string() : made.error().message;
  };
  EXPECT_NE(why(make_fixed_window(0, Span::day)).find("1 or more"), std::string::npos);
  EXPECT_EQ(why(make_sliding_window(524'287, Span::second)), "");
  EXPECT_NE(why(make_sliding_window(524'288, Span::second)).find("at most 524287"),
            std::string::npos);
  EXPECT_EQ(why(make_sliding_window(4'194'303, Span::minute)), "");
  EXPECT_NE(why(make_sliding_window(4'194'304, Span::minute)).find("one minute"),
            std::string::npos);
  EXPECT_EQ(why(make_concurrency(1'048'575)), "");
  EXPECT_NE(why(make_concurrency(1'048'576)).find("1048575 can be counted at once"),
            std::string::npos);
  EXPECT_EQ(why(make_fixed_window(200'000'000'000, Span::second)), "");
}

}  // namespace
}  // namespace penstock::limit
