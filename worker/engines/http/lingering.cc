#include "worker/engines/http/lingering.h"

#include <algorithm>

namespace penstock::http_engine {

void Lingering::add(JobNumber job, int64_t now_ns, int64_t linger_ns, int64_t most_ns) {
  jobs_.push_back({job, now_ns + linger_ns, now_ns + most_ns});
  free_ = 0;
}

void Lingering::told(uint64_t busy, uint64_t ours, int64_t now_ns) {
  const uint64_t held = jobs_.size();
  const uint64_t free = held - std::min(held, busy - std::min(busy, ours));
  const uint64_t leave = std::min(free, free_);
  for (uint64_t i = 0; i < held; ++i) {
    Held& each = jobs_[i];
    // Until it is asked again, and a while longer.
    each.until_ns =
        i < leave ? now_ns
                  : std::min(std::max(now_ns + 10 * kAskEveryNs, each.until_ns), each.latest_ns);
  }
  free_ = free - leave;
}

std::vector<JobNumber> Lingering::take_free(int64_t now_ns) {
  std::vector<JobNumber> free;
  std::erase_if(jobs_, [&](const Held& each) {
    if (each.until_ns <= now_ns) {
      free.push_back(each.job);
    }
    return each.until_ns <= now_ns;
  });
  return free;
}

int64_t Lingering::due_ns() const {
  int64_t due_ns = INT64_MAX;
  for (const Held& each : jobs_) {
    due_ns = std::min(due_ns, each.until_ns);
  }
  return due_ns;
}

}  // namespace penstock::http_engine
