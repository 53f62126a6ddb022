#include "worker/queue/shared_jobs/recent_ends.h"

#include <set>
#include <utility>
#include <vector>

#include "worker/queue/text/log.h"

namespace penstock::queue {

void RecentEnds::add(std::string id, uint64_t fence, char how, std::string result,
                     int64_t keep_ms) {
  bytes_ += result.size();
  ends_.push_back({std::move(id), std::move(result), fence, how, keep_ms, monotonic_ns()});
  forget_old();
}

void RecentEnds::forget_old() {
  const int64_t since_ns = monotonic_ns() - kKeptNs;
  while (!ends_.empty() &&
         (ends_.front().told_ns < since_ns || ends_.size() > kMost || bytes_ > kMostBytes)) {
    bytes_ -= ends_.front().result.size();
    ends_.pop_front();
  }
}

void RecentEnds::doubt() {
  forget_old();
  std::vector<std::string> ids;
  for (size_t i = 0; i < ends_.size(); ++i) {
    ids.push_back(ends_[i].id);
    if (ids.size() < kMostAsked && i + 1 < ends_.size()) {
      continue;
    }
    const std::vector<std::string_view> views(ids.begin(), ids.end());
    order_.states(views, [this, ids,
                          alive = alive_](const SharedOrder::Answer<std::vector<int64_t>>& answer) {
      if (*alive && answer && answer.value.size() == ids.size()) {
        told(ids, answer.value);
      }
    });
    ids.clear();
  }
}

void RecentEnds::told(const std::vector<std::string>& ids, const std::vector<int64_t>& states) {
  std::set<std::string_view> undone;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (static_cast<SharedOrder::Known::State>(states[i]) != SharedOrder::Known::State::kOver) {
      undone.insert(ids[i]);
    }
  }
  for (const End& end : ends_) {
    if (undone.contains(end.id)) {
      order_.mend(end.id, end.fence, end.how, end.result, end.keep_ms,
                  [](const SharedOrder::Answer<SharedOrder::End>&) {});
    }
  }
  if (!undone.empty()) {
    log(Level::kWarn, "queue " + queue_ + ": Redis had lost the ends of " +
                          std::to_string(undone.size()) + " jobs; they are said again");
  }
}

}  // namespace penstock::queue
