#include "worker/queue/bound/adaptive_slots.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace penstock::queue {
namespace {

constexpr double kRounds = 4;           // of the shortest window
constexpr double kFewestJobs = 12;      // at the smaller of two limits
constexpr double kLongestDoubling = 5;  // windows get longer with each pair, 2^5 times at most
constexpr double kPatience = 4;         // times what a window should take
constexpr double kMostRest = 8;         // times what a search took
constexpr uint32_t kCoarseChecks = 4;   // one in so many after a rest looks at the smallest steps
constexpr double kDriftSigmas = 4;
constexpr double kFarDrift = 0.3;   // of the logarithm: the answer may be far, too
constexpr double kUsualJobs = 256;  // over which the usual share of failures is taken

double as_share(double log_ratio) { return std::expm1(log_ratio); }

uint32_t scaled(uint32_t slots, double doublings) {
  return static_cast<uint32_t>(
      std::clamp(std::round(slots * std::exp2(doublings)), 1.0, double{UINT32_MAX}));
}

}  // namespace

AdaptiveSlots::AdaptiveSlots(uint32_t most, uint32_t first)
    : most_(std::max(most, 1U)), base_(std::clamp(first, 1U, most_)), limit_(base_) {
  try_next(0);
}

uint32_t AdaptiveSlots::bound(int64_t now_ns) const noexcept {
  return now_ns < ceiling_until_ns_ ? std::min(most_, ceiling_) : most_;
}

void AdaptiveSlots::allow(uint32_t most, int64_t now_ns) {
  most = std::max(most, 1U);
  if (most == most_) {
    return;
  }
  const bool more = most > most_;
  most_ = most;
  why_ = {.because = Because::kBound, .from = base_};
  base_ = std::min(base_, most_);
  search(more ? 1 : 0.5, true, now_ns);
}

void AdaptiveSlots::started(int64_t now_ns, uint32_t running) {
  advance_to(now_ns);
  pass(now_ns, running);
}

void AdaptiveSlots::ended(int64_t now_ns, uint32_t running, const EndedJob& job) {
  advance_to(now_ns);
  pass(now_ns, running);
  if (job.end == End::kCancelled) {
    return;
  }
  if (failures_rise(job)) {
    back_off(now_ns);
    return;
  }
  if (!window_.is_open() || job.began_ns < window_.opened_ns()) {
    return;
  }
  const auto service_ns = static_cast<double>(std::max<int64_t>(now_ns - job.began_ns, 1));
  window_.add(job.end == End::kCompleted ? std::max(job.work, 0.0) : 0, service_ns);
  if (window_.jobs() >= rounds() * limit_ && window_.lasted_ns() >= kWindowNs) {
    window_done(now_ns);
  }
}

void AdaptiveSlots::advance_to(int64_t now_ns) {
  if (phase_ == Phase::kResting && now_ns >= rest_until_ns_) {
    search(0.5, true, now_ns);
    finest_ = ++checks_ % kCoarseChecks == 0 ? kSmallestStep : 0.5;
  }
  if (now_ns < patience_ns_) {
    return;
  }
  pass(now_ns, running_);
  if (now_ns < patience_ns_) {
    return;  // it was idle: interrupted
  }
  if (window_.is_open()) {
    reject(Because::kStalled, now_ns);
  } else {
    interrupt(now_ns);  // never full: nothing is known
  }
}

int64_t AdaptiveSlots::next_event() const noexcept {
  return phase_ == Phase::kResting ? rest_until_ns_ : patience_ns_;
}

void AdaptiveSlots::pass(int64_t now_ns, uint32_t running) {
  if (window_.is_open()) {
    window_.pass(now_ns, running_, limit_);
    if (spoiled()) {
      interrupt(now_ns);
    }
  }
  running_ = running;
  if (!window_.is_open() && running_ == limit_) {
    window_.open(now_ns);
  }
}

bool AdaptiveSlots::spoiled() const noexcept {
  const auto lasts = std::max(window_.lasted_ns(), second_ ? first_.lasted_ns() : 0);
  return window_.idle_slot_ns() > kMostIdle * limit_ * static_cast<double>(lasts);
}

// The window, and with it the pair it belongs to.
void AdaptiveSlots::interrupt(int64_t now_ns) {
  window_.close();
  if (phase_ == Phase::kComparing) {
    second_ = false;
    set_limit(base_, now_ns);
  }
}

void AdaptiveSlots::set_limit(uint32_t limit, int64_t now_ns) {
  window_.close();
  if (limit != limit_) {
    learn_failures();
    lowered_ns_ = limit < limit_ ? now_ns : lowered_ns_;
  }
  limit_ = limit;
  patience_ns_ = INT64_MAX;
  if (phase_ == Phase::kComparing && limit == probe_ && base_round_ns_ > 0) {
    const double more = std::max(1.0, static_cast<double>(probe_) / base_);
    patience_ns_ =
        now_ns + static_cast<int64_t>(kPatience * more *
                                      std::max(base_round_ns_ * rounds(), 1.0 * kWindowNs));
  }
}

// The same on both sides of a pair: enough jobs also with the fewer slots.
double AdaptiveSlots::rounds() const noexcept {
  if (phase_ == Phase::kResting) {
    return std::max(kRounds, 64.0 / base_);
  }
  const double fewer = std::min(base_, probe_);
  const double longer = std::exp2(std::min<double>(comparison_.pairs(), kLongestDoubling));
  return std::max(kRounds, std::ceil(kFewestJobs / fewer)) * longer;
}

void AdaptiveSlots::search(double step, bool up_first, int64_t now_ns) {
  step_ = step;
  finest_ = kSmallestStep;
  up_first_ = up_first;
  worse_below_ = 0;
  worse_above_ = UINT32_MAX;
  searched_ns_ = 0;
  try_next(now_ns);
}

// 0 when nothing is left to try that way.
uint32_t AdaptiveSlots::candidate(bool up, uint32_t most) const noexcept {
  if (up) {
    uint32_t to = std::max(base_ + 1, scaled(base_, step_));
    to = to + to / 8 >= most ? most : to;  // no small step is left over
    return to > base_ && to < worse_above_ ? to : 0;
  }
  const uint32_t to = std::min(base_ - 1, scaled(base_, -step_));
  return to > worse_below_ && to < base_ ? to : 0;
}

void AdaptiveSlots::try_next(int64_t now_ns) {
  const uint32_t most = bound(now_ns);
  for (;; step_ /= 2) {
    probe_ = candidate(up_first_, most);
    probe_ = probe_ != 0 ? probe_ : candidate(!up_first_, most);
    if (probe_ != 0) {
      break;
    }
    if (step_ <= finest_) {
      rest(now_ns);
      return;
    }
  }
  phase_ = Phase::kComparing;
  comparison_ = {};
  second_ = false;
  base_round_ns_ = 0;
  set_limit(base_, now_ns);
}

void AdaptiveSlots::window_done(int64_t now_ns) {
  if (phase_ == Phase::kResting) {
    watch_drift(now_ns);
    window_.close();
    return;
  }
  searched_ns_ += static_cast<double>(window_.lasted_ns());
  if (limit_ == base_) {
    base_round_ns_ = static_cast<double>(window_.lasted_ns()) * base_ / window_.jobs();
  }
  if (!second_) {
    first_ = window_;
    second_ = true;
    set_limit(limit_ == base_ ? probe_ : base_, now_ns);
    return;
  }
  second_ = false;
  const bool probe_last = limit_ == probe_;
  comparison_.add(probe_last ? first_ : window_, probe_last ? window_ : first_);
  judge(now_ns);
}

void AdaptiveSlots::judge(int64_t now_ns) {
  const double gain = comparison_.work() - kWorth * comparison_.slots();
  const double unsure = kSigmas * comparison_.error();
  if (gain > unsure) {
    move(now_ns);
  } else if (gain < -unsure) {
    reject(Because::kNotWorth, now_ns);
  } else if (comparison_.jobs() >= 2 * kMostJobs) {
    reject(Because::kTie, now_ns);
  } else {
    set_limit(limit_, now_ns);  // the next pair begins where this one ended
  }
}

void AdaptiveSlots::move(int64_t now_ns) {
  explain(Because::kWorth);
  up_first_ = probe_ > base_;
  (up_first_ ? worse_below_ : worse_above_) = base_;
  base_ = probe_;
  rest_factor_ = 2;
  finest_ = kSmallestStep;
  if (up_first_ ? worse_above_ == UINT32_MAX : worse_below_ == 0) {
    step_ = std::min(1.0, 2 * step_);  // it may be far
  }
  try_next(now_ns);
}

void AdaptiveSlots::reject(Because because, int64_t now_ns) {
  explain(because);
  (probe_ > base_ ? worse_above_ : worse_below_) = probe_;
  try_next(now_ns);
}

void AdaptiveSlots::explain(Because because) {
  why_ = {.because = because, .from = base_, .other = probe_};
  why_.slots_more = static_cast<double>(probe_) / base_ - 1;
  if (comparison_.pairs() > 0) {
    why_.work_more = as_share(comparison_.work());
    why_.time_more = as_share(comparison_.slots() - comparison_.work());
    why_.error = comparison_.error() * (1 + why_.work_more);
  }
}

void AdaptiveSlots::rest(int64_t now_ns) {
  phase_ = Phase::kResting;
  has_reference_ = false;
  drifted_ = 0;
  set_limit(base_, now_ns);
  const bool held = now_ns < ceiling_until_ns_;
  if (base_ > ceiling_) {
    hold_ns_ = kHoldNs;  // they fail there no longer
  }
  if (most_ == 1) {
    rest_until_ns_ = INT64_MAX;
    return;
  }
  const double ns = std::max(rest_factor_ * searched_ns_, 10.0 * kWindowNs);
  rest_until_ns_ = now_ns + static_cast<int64_t>(std::min(ns, 1e18));
  rest_factor_ = std::min(2 * rest_factor_, kMostRest);
  if (held && bound(now_ns) == 1) {
    rest_until_ns_ = std::max(rest_until_ns_, ceiling_until_ns_);
  }
}

void AdaptiveSlots::watch_drift(int64_t now_ns) {
  if (!has_reference_) {
    reference_ = window_;
    has_reference_ = true;
    return;
  }
  const double slower = reference_.log_work() - window_.log_work();
  const double unsure = kDriftSigmas * std::sqrt(reference_.variance() + window_.variance());
  if (std::abs(slower) < std::max(unsure, kDrift)) {
    drifted_ = 0;
    return;
  }
  const int way = slower > 0 ? 1 : -1;
  drifted_ = drifted_ * way > 0 ? drifted_ + way : way;
  if (std::abs(drifted_) < 2) {
    return;
  }
  why_ = {.because = Because::kDrift, .from = base_, .time_more = as_share(slower)};
  rest_factor_ = 2;
  search(std::abs(slower) > kFarDrift ? 1 : 0.5, way < 0, now_ns);
}

// More than chance makes of the usual share: four times the deviation of a Poisson count.
bool AdaptiveSlots::failures_rise(const EndedJob& job) {
  if (job.began_ns < lowered_ns_) {
    return false;
  }
  recent_jobs_ += 1;
  recent_failed_ += job.end == End::kFailed ? 1 : 0;
  const double usual = failing_ * recent_jobs_;
  if (job.end == End::kFailed && recent_failed_ > 3 + usual + 4 * std::sqrt(usual)) {
    return true;
  }
  if (recent_jobs_ >= std::max(64.0, 2.0 * limit_)) {
    learn_failures();
  }
  return false;
}

// What a trial brought is not usual.
void AdaptiveSlots::learn_failures() {
  if (limit_ <= base_) {
    failing_jobs_ = std::min(failing_jobs_ + recent_jobs_, kUsualJobs);
    failing_ += (recent_failed_ - failing_ * recent_jobs_) / std::max(failing_jobs_, recent_jobs_);
  }
  recent_jobs_ = recent_failed_ = 0;
}

void AdaptiveSlots::back_off(int64_t now_ns) {
  const uint32_t failing = limit_;
  learn_failures();
  if (failing == 1) {
    return;
  }
  why_ = {.because = Because::kFailures, .from = base_, .other = failing};
  ceiling_ = now_ns < ceiling_until_ns_ ? std::min(ceiling_, failing - 1) : failing - 1;
  ceiling_until_ns_ = now_ns + hold_ns_;
  hold_ns_ = std::min(2 * hold_ns_, kMostHoldNs);
  if (failing <= base_) {
    base_ = std::clamp(scaled(failing, -0.5), 1U, failing - 1);
  }
  rest_factor_ = 2;
  search(0.5, true, now_ns);
}

std::string AdaptiveSlots::say() const {
  return std::to_string(base_) + (base_ == 1 ? " slot: " : " slots: ") + say_why();
}

std::string AdaptiveSlots::say_why() const {
  const char* const way = why_.time_more < 0 ? "shorter" : "longer";
  const long time = std::lround(100 * std::abs(why_.time_more));
  char text[160] = "";
  switch (why_.because) {
    case Because::kNothingYet:
      return most_ == 1 ? "the bound" : "nothing compared yet";
    case Because::kWorth:
    case Because::kNotWorth:
      std::snprintf(text, sizeof text,
                    "%.0f %% %s %s %.1f %% %s work (± %.1f), a job took %ld %% %s",
                    100 * std::abs(why_.slots_more), why_.slots_more < 0 ? "fewer" : "more",
                    why_.because == Because::kWorth ? "brought" : "would bring",
                    100 * std::abs(why_.work_more), why_.work_more < 0 ? "less" : "more",
                    100 * why_.error, time, way);
      return text;
    case Because::kTie:
      std::snprintf(text, sizeof text, "whether %u are better is too close to tell (± %.1f %%)",
                    why_.other, 100 * why_.error);
      return text;
    case Because::kStalled:
      return "with " + std::to_string(why_.other) + " the work all but stopped";
    case Because::kFailures:
      return "with " + std::to_string(why_.other) + " jobs failed that did not before";
    case Because::kDrift:
      std::snprintf(text, sizeof text, "a job takes %ld %% %s than before; looking again", time,
                    way);
      return text;
    case Because::kBound:
      return "the bound is " + std::to_string(most_) + " now; looking again";
  }
  return text;
}

}  // namespace penstock::queue
