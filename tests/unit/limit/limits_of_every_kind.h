// Random limits of every algorithm, and costs to try them with.
#pragma once

#include <algorithm>
#include <random>

#include "tests/unit/limit/limit_fixture.h"

namespace penstock::limit {

constexpr Algorithm kAlgorithms[] = {Algorithm::gcra, Algorithm::fixed_window,
                                     Algorithm::sliding_window, Algorithm::concurrency,
                                     Algorithm::sliding_log};

class LimitsOfEveryKind {
 public:
  explicit LimitsOfEveryKind(uint64_t seed) : random_(seed) {}

  uint64_t below(uint64_t n) { return random_() % n; }
  bool one_in(uint64_t n) { return below(n) == 0; }
  uint64_t word() { return random_(); }

  // Mostly small, so that it is often exceeded.
  uint64_t count(uint64_t most) {
    return 1 + below(one_in(8) ? most : std::min<uint64_t>(most, 12));
  }

  Policy next() { return next(kAlgorithms[below(std::size(kAlgorithms))]); }

  Policy next(Algorithm algorithm) {
    constexpr Span kSpans[] = {Span::second, Span::minute, Span::hour,
                               Span::day,    Span::week,   Span::month};
    const Span span = kSpans[below(std::size(kSpans))];
    switch (algorithm) {
      case Algorithm::fixed_window:
        return fixed_window(count(1'000'000), span);
      case Algorithm::sliding_window:
        return sliding_window(count(500'000), span);
      case Algorithm::concurrency:
        return concurrency(count(1'000));
      case Algorithm::sliding_log:
        return sliding_log(count(40), 1 + static_cast<int64_t>(word() >> (13 + below(40))));
      default:
        return next_gcra();
    }
  }

  // One unit, some, all, none, and more than there can be.
  uint64_t cost(const Policy& limit) {
    switch (below(6)) {
      case 0:
        return below(limit.limit + 3);
      case 1:
        return 1 + below(1 + limit.limit / 3);
      default:
        return 1;
    }
  }

  // Mostly about as long as the last answer told to wait, and at most four days.
  int64_t wait(const Decision& last) {
    const int64_t most = int64_t{1} << 48;
    const int64_t told = std::clamp<int64_t>(std::max(last.retry_after_ns, last.reset_ns), 1, most);
    switch (below(8)) {
      case 0:
        return std::clamp<int64_t>(last.retry_after_ns, 0, most);
      case 1:
        return std::clamp<int64_t>(last.retry_after_ns - 1, 0, most);
      case 2:
        return static_cast<int64_t>(below(static_cast<uint64_t>(told)));
      case 3:
        return told;
      case 4:
        return static_cast<int64_t>(below(3));
      default:
        return 0;
    }
  }

 private:
  Policy next_gcra() {
    for (;;) {
      const uint64_t period_ns = kSecond << below(22);
      const uint64_t amount = 1 + (word() >> (41 + below(23)));
      auto made = make_gcra(amount, period_ns, one_in(3) ? 0 : count(1'000'000));
      if (!made) {
        continue;
      }
      if (one_in(2)) {
        allow_delay(*made, word() >> (20 + below(30)));
      }
      return make_policy(*made);
    }
  }

  std::mt19937_64 random_;
};

}  // namespace penstock::limit
