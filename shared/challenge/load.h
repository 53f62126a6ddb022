// Load: how hard challenges are, by how many are solved; and what may be spent on issuing them.
#pragma once

#include <cstdint>

namespace penstock::challenge {

// Adds a level for each doubling of what was solved in the last minute over what is usual. It falls
// by one a minute. Each process has its own, and is told what all have counted together.
class Load {
 public:
  static constexpr uint64_t kLeastUsual = 60;  // a minute: fewer are never much

  // Levels to add to a limit's own; `solved` is a count that only rises.
  int extra(uint64_t solved, int64_t now_s) noexcept;

 private:
  int64_t minute_s_ = -1;                  // when the minute began
  uint64_t at_minute_ = 0;                 // `solved` then
  uint64_t last_ = 0;                      // in the minute before
  uint64_t usual_ = kLeastUsual * kParts;  // a minute, in parts: slowly follows
  int raised_ = 0;
  int64_t raised_s_ = 0;  // when it was raised, or fell, last

  static constexpr uint64_t kParts = 64;
};

// At most so many derivations a second, by one process. What is not used is not saved up.
class Budget {
 public:
  static constexpr int64_t kPerSecond = 100;

  bool take(int64_t now_ms) noexcept {
    if (now_ms - second_ms_ >= 1000 || now_ms < second_ms_) {
      second_ms_ = now_ms;
      taken_ = 0;
    }
    return taken_ < kPerSecond && (++taken_, true);
  }

 private:
  int64_t second_ms_ = 0;
  int64_t taken_ = 0;
};

}  // namespace penstock::challenge
