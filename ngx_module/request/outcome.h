// Outcome: what became of a request, or of one limit's part in it, and of what it was to cost.
#pragma once

#include "ngx_module/conf/conf.h"

namespace penstock {

enum class Outcome : uint8_t {
  kPassed,
  kRejected,
  kDelayed,
  kDegraded,
  kChallenged,
  kBusy,            // a whole request only: the queue refused it, or the zone was full
  kRejectedDryRun,  // passed; a dry run would have done this
  kDelayedDryRun,
  kDegradedDryRun,
  kChallengedDryRun,
  kNone,  // no limit has judged yet; it is not counted
};
constexpr size_t kOutcomes = 10;  // that are counted

struct OutcomeWords {
  std::string_view label;   // in metrics
  std::string_view status;  // in $penstock_status
};

constexpr OutcomeWords kOutcomeWords[] = {
    {"passed", "PASSED"},
    {"rejected", "REJECTED"},
    {"delayed", "DELAYED"},
    {"degraded", "DEGRADED"},
    {"challenged", "CHALLENGED"},
    {"busy", "BUSY"},
    {"rejected_dry_run", "REJECTED_DRY_RUN"},
    {"delayed_dry_run", "DELAYED_DRY_RUN"},
    {"degraded_dry_run", "DEGRADED_DRY_RUN"},
    {"challenged_dry_run", "CHALLENGED_DRY_RUN"},
    {"", ""},
};

constexpr const OutcomeWords& words_of(Outcome outcome) noexcept {
  return kOutcomeWords[static_cast<size_t>(outcome)];
}

constexpr bool is_refused(Outcome outcome) noexcept {
  return outcome == Outcome::kRejected || outcome == Outcome::kChallenged ||
         outcome == Outcome::kBusy;
}

// What a limit makes of a request that is over it, if it can.
constexpr Outcome outcome_of(Action action, bool dry_run) noexcept {
  constexpr Outcome kOf[][2] = {{Outcome::kRejected, Outcome::kRejectedDryRun},
                                {Outcome::kDelayed, Outcome::kDelayedDryRun},
                                {Outcome::kDegraded, Outcome::kDegradedDryRun},
                                {Outcome::kChallenged, Outcome::kChallengedDryRun}};
  return kOf[static_cast<size_t>(action)][dry_run ? 1 : 0];
}

// What became of challenges: given to a caller; answered rightly; answered in any other way;
// answered, but the provider could not be asked.
enum class ChallengeEvent : uint8_t { kIssued, kPassed, kFailed, kProviderError };
constexpr size_t kChallengeEvents = 4;

// What happened to cost: put aside at admission; what was used in the end; given back.
enum class CostEvent : uint8_t { kReserved, kSettled, kRefunded };
constexpr size_t kCostEvents = 3;

}  // namespace penstock
