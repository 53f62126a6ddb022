// AdaptiveSlots: how many jobs a device should run at once, found by trying (`slots: auto`).
//
// With all of L slots busy a device does X(L) work a second and, by Little's law, keeps a job for
// R(L) = L / X(L). Kleinrock's power X / R (1979, "Power and deterministic rules of thumb") with a
// weight, X / R^w, is largest where the elasticity of X, d log X / d log L, is w / (1 + w): here
// w = 1/4, so that a tenth more slots must bring at least 2 % more work. On a device that is linear
// up to a knee and flat after it, that is the knee.
//
// How it is found: the limit in force and another are tried by turns (A B, B A, ...), each for some
// rounds of jobs, until the difference is known to 2.5 standard errors or too small to matter; see
// throughput_comparison.h. The first steps double (slow start); a step that was not worth it is
// halved, down to a quarter of a doubling. Then the limit rests, longer each time nothing was
// found, up to eight times what the look took, but not when jobs come to take another time. Of four
// looks after a rest three are coarse. The idea of a gradient is that of Gradient2 (Netflix
// concurrency-limits) and TCP Vegas, but by trial: their least latency is that of an idle device,
// which a batching GPU never shows, and which changes with the mix.
//
// Promised: never above `most`, never below 1. Nothing is concluded while a tenth of the slots is
// idle, so a load that comes and goes moves nothing. When jobs fail that did not before, the limit
// steps down at once and stays below for a while, longer each time. A share of failures that is the
// same at every limit does not count. Memory is constant, every call is O(1).
//
// Not promised: a difference below the noise of 16,384 jobs. How soon it settles is a matter of
// noise: tens of jobs a step where their time follows from their work, thousands where it is
// exponential and unknown (adaptive_slots_bench). What moves at once with every change of the limit
// (a caller who sends bigger jobs when more run) cannot be told from the device.
#pragma once

#include <cstdint>
#include <string>

#include "shared/base/clock.h"
#include "worker/queue/bound/throughput_comparison.h"

namespace penstock::queue {

class AdaptiveSlots {
 public:
  static constexpr double kWorth = 0.2;          // elasticity of throughput: w / (1 + w)
  static constexpr double kSigmas = 2.5;         // to be sure of a difference
  static constexpr double kMostIdle = 0.1;       // share of the slots
  static constexpr double kSmallestStep = 0.25;  // of a doubling
  static constexpr double kMostJobs = 16'384;    // at each of two limits, then it is a tie
  static constexpr double kDrift = 0.1;          // change of a job's time that is looked into
  static constexpr int64_t kWindowNs = 100 * kNsPerMs;  // at least
  static constexpr int64_t kHoldNs = 10 * kNsPerSec;    // below where jobs failed; doubles
  static constexpr int64_t kMostHoldNs = 3600 * kNsPerSec;

  enum class End {
    kCompleted,
    kFailed,     // by the device's or the engine's doing: out of memory, a crash
    kCancelled,  // says nothing
  };
  struct EndedJob {
    int64_t began_ns = 0;
    double work = 1;  // in any unit that a job's time is proportional to: tokens, or 1 for each
    End end = End::kCompleted;
  };

  enum class Because {
    kNothingYet,
    kWorth,     // `other` was better: it is the limit now
    kNotWorth,  // `other` was not
    kTie,       // too close to tell
    kStalled,   // at `other` the work all but stopped
    kFailures,  // at `other` jobs failed
    kDrift,     // jobs take another time: it looks again
    kBound,     // the bound was changed
  };
  // The last decision.
  struct Why {
    Because because = Because::kNothingYet;
    uint32_t from = 0;      // the limit until then
    uint32_t other = 0;     // what was compared with it; may be the limit now
    double slots_more = 0;  // of `other` over `from`, as shares: 0.25 is a quarter more
    double work_more = 0;
    double time_more = 0;  // of a job, in service
    double error = 0;      // standard error of work_more
  };

  explicit AdaptiveSlots(uint32_t most, uint32_t first = 1);

  // The bound has changed.
  void allow(uint32_t most, int64_t now_ns);
  // A job was started or ended; `running` are running now. REQUIRES: time never goes back.
  void started(int64_t now_ns, uint32_t running);
  void ended(int64_t now_ns, uint32_t running, const EndedJob& job);
  // Call it at next_event(), and before something is started.
  void advance_to(int64_t now_ns);
  int64_t next_event() const noexcept;  // INT64_MAX: none

  // How many may run now. While something is tried, it differs from settled().
  uint32_t limit() const noexcept { return limit_; }
  uint32_t settled() const noexcept { return base_; }
  bool resting() const noexcept { return phase_ == Phase::kResting; }
  const Why& why() const noexcept { return why_; }
  // For people: "8 slots: 25 % more would bring 1.2 % more work (± 0.4), a job took 24 % longer".
  std::string say() const;

 private:
  enum class Phase { kComparing, kResting };

  uint32_t bound(int64_t now_ns) const noexcept;
  void pass(int64_t now_ns, uint32_t running);
  void set_limit(uint32_t limit, int64_t now_ns);
  // A search: what to try next, and what came of it.
  void search(double step, bool up_first, int64_t now_ns);
  void try_next(int64_t now_ns);
  uint32_t candidate(bool up, uint32_t most) const noexcept;
  void interrupt(int64_t now_ns);
  bool spoiled() const noexcept;
  double rounds() const noexcept;
  void window_done(int64_t now_ns);
  void judge(int64_t now_ns);
  void move(int64_t now_ns);
  void reject(Because because, int64_t now_ns);
  void explain(Because because);
  void rest(int64_t now_ns);
  void watch_drift(int64_t now_ns);
  bool failures_rise(const EndedJob& job);
  void learn_failures();
  void back_off(int64_t now_ns);
  std::string say_why() const;

  uint32_t most_;
  uint32_t base_;
  uint32_t limit_;  // base_, or probe_ while that is tried
  uint32_t probe_ = 0;
  uint32_t running_ = 0;
  Phase phase_ = Phase::kComparing;
  Why why_;

  // The search: step_ in doublings; better is known to lie between two numbers.
  double step_ = 1;
  double finest_ = kSmallestStep;
  bool up_first_ = true;
  uint32_t worse_below_ = 0;
  uint32_t worse_above_ = UINT32_MAX;
  double searched_ns_ = 0;

  ThroughputComparison comparison_;
  ThroughputWindow window_;
  ThroughputWindow first_;           // of the pair
  bool second_ = false;              // of the pair is being measured
  double base_round_ns_ = 0;         // how long a round took at base_
  int64_t patience_ns_ = INT64_MAX;  // until then the probe must be done

  int64_t rest_until_ns_ = INT64_MAX;
  uint32_t checks_ = 0;
  double rest_factor_ = 2;  // of the time the search took
  ThroughputWindow reference_;
  bool has_reference_ = false;
  int drifted_ = 0;  // windows in a row, signed

  uint32_t ceiling_ = UINT32_MAX;
  int64_t ceiling_until_ns_ = 0;
  int64_t hold_ns_ = kHoldNs;
  double failing_ = 0;  // the usual share, learned at base_ and below
  double failing_jobs_ = 16;
  int64_t lowered_ns_ = INT64_MIN;  // jobs that began before may fail for having been too many
  double recent_jobs_ = 0;
  double recent_failed_ = 0;
};

}  // namespace penstock::queue
