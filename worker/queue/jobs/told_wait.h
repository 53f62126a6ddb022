// ToldWait: what was said last of a job's place and wait, to tell what is news from what is not.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "shared/base/clock.h"
#include "worker/queue/jobs/job_view.h"

namespace penstock::queue {

struct ToldWait {
  JobStatus status = JobStatus::kQueued;
  uint32_t position = 0;
  uint32_t ahead_by_class = 0;
  int64_t eta_s = 0;
  std::optional<int64_t> foretold_s;  // on the loop's clock: when it starts, or is done

  static ToldWait of(const JobView& view, int64_t now_ns) {
    ToldWait told{
        .status = view.status, .position = view.position, .ahead_by_class = view.ahead_by_class};
    if (view.eta_seconds) {
      told.eta_s = *view.eta_seconds;
      told.foretold_s = now_ns / kNsPerSec + told.eta_s;
    }
    return told;
  }
  // Why a place is further back than was told.
  std::optional<JobView::Moved> moved(const JobView& now) const {
    if (position == 0 || now.position <= position) {
      return std::nullopt;
    }
    return JobView::Moved{position, now.ahead_by_class > ahead_by_class ? "class" : "share"};
  }
  // By a place, or by 5 s and 10 % of what is foretold. That time goes by is no news.
  bool differs(const ToldWait& now) const {
    constexpr int64_t kSeconds = 5;
    constexpr int64_t kPart = 10;
    if (status != now.status || position != now.position ||
        foretold_s.has_value() != now.foretold_s.has_value()) {
      return true;
    }
    return now.foretold_s &&
           std::abs(*foretold_s - *now.foretold_s) > std::max(kSeconds, now.eta_s / kPart);
  }
};

}  // namespace penstock::queue
