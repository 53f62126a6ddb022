// Pace: how fast the server behind a worker may be used, so that its own limits are never met.
//
// A paid API, or a server that somebody else bounds, refuses what comes too fast. So a job starts
// only once all of these have room for it:
//
//   rolling    never more than `amount` in any span of `length_ns`, wherever it begins
//   calendar   never more than `amount` in each minute, hour, day ... of the calendar, in UTC
//              (limit::WindowPolicy, fixed)
//   at once    never more than so many running jobs
//
// The first two count requests, or tokens: what a job says it will cost, and what it used once that
// is known. Where several workers share a pace, the one starts whose job is of the highest class.
// Between equals they take turns, model by model.
//
// The rolling window is a log of what was started, as in shared/limit's sliding log: each unit
// counts for a window's length. Units that come close together share an entry, which counts until
// the last of them is over. So the error is on the safe side, and at most a thousandth of the
// length. An entry counts a moment longer than the window (kLateNs): the server counts a request
// when it arrives, and one may be late where the next is not.
//
// What must outlive the process is in plain records, in memory that the owner brings, which may be
// a file's. A kill at any instruction leaves at most the newest entry uncounted, whose job had not
// started yet. Time is pushed in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "shared/limit/window.h"
#include "worker/queue/order/scheduler.h"

namespace penstock::queue {

struct PaceLimit {
  enum class Unit : uint8_t { kRequests, kTokens } unit = Unit::kRequests;
  uint64_t amount = 0;                  // at least 1
  int64_t length_ns = 0;                // rolling
  std::optional<limit::Span> calendar;  // else by the calendar
  bool operator==(const PaceLimit&) const = default;
};

// What is remembered of one limit; all zeros: nothing was used.
struct PaceRecord {
  static constexpr size_t kEntries = 1024;
  struct Entry {
    int64_t since_ns = 0;  // its first unit; steady
    int64_t until_ns = 0;  // its last
    uint64_t amount = 0;
  };
  uint64_t window = 0;  // calendar: the state of shared/limit/window.h
  uint64_t first = 0;   // rolling: entries [first, end), modulo kEntries
  uint64_t end = 0;
  std::array<Entry, kEntries> entries;
};

class Pace final : public Scheduler::Brake {
 public:
  static constexpr size_t kMostLimits = 4;
  static constexpr int64_t kMostLateNs = 100'000'000;
  // How much longer than the window a unit counts.
  static constexpr int64_t late_ns(int64_t length_ns) {
    return length_ns / 50 < kMostLateNs ? length_ns / 50 : kMostLateNs;
  }

  // `records` has one for each of the limits, and outlives this. `at_once` 0: any number. May be
  // called again: running jobs go on. REQUIRES: at most kMostLimits.
  void set(std::vector<PaceLimit> limits, uint32_t at_once, std::vector<PaceRecord*> records);
  // The time by the calendar. All other times are steady.
  void set_time(const limit::Instant& now) { time_ = now; }

  // What a job was counted as.
  struct Start {
    int64_t at_ns = 0;
    uint64_t tokens = 0;
    std::array<uint64_t, kMostLimits> windows{};  // calendar: the states that it left
  };

  // When a job that will cost `tokens` may start; a time that is over: at once. A job that costs
  // more than a limit ever admits starts when nothing of that limit is used. INT64_MAX: when
  // another ends.
  int64_t opens_ns(uint64_t tokens, int64_t now_ns) const;
  // Counts a job that starts, whether or not there is room.
  Start start(uint64_t tokens, int64_t now_ns);
  // A number for each job of the lanes that share the pace: 1, 2, ...
  uint64_t next_turn() { return ++turns_; }
  // The job ended, and used so many tokens.
  void end(const Start& start, uint64_t tokens, int64_t now_ns);
  // It was started in an earlier life, and still runs.
  void go_on() { ++running_; }
  // The job was never sent: it does not count.
  void take_back(const Start& start, int64_t now_ns);

  // When the last of `jobs` jobs, with `tokens` together, could start if no others do.
  int64_t starts_ns(uint64_t jobs, uint64_t tokens, int64_t now_ns) const override;

  uint32_t running() const { return running_; }
  const std::vector<PaceLimit>& limits() const { return limits_; }
  uint32_t at_once() const { return at_once_; }
  // How much of a limit is used now.
  uint64_t used(size_t limit, int64_t now_ns) const;

 private:
  using Unit = PaceLimit::Unit;
  limit::Instant instant(int64_t now_ns) const {
    return {now_ns, time_.wall_ns + (now_ns - time_.steady_ns)};
  }
  void count(size_t limit, uint64_t amount, int64_t now_ns);
  void give_back(size_t limit, const Start& start, uint64_t amount);
  void correct(const Start& start, bool request, uint64_t tokens, int64_t now_ns);

  limit::Instant time_;
  std::vector<PaceLimit> limits_;
  uint32_t at_once_ = 0;
  std::vector<PaceRecord*> records_;
  uint32_t running_ = 0;
  uint64_t turns_ = 0;
};

}  // namespace penstock::queue
