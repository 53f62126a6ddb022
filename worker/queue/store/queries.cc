#include "worker/queue/store/queries.h"

#include <algorithm>

namespace penstock::queue {

void JobPage::cut(const std::optional<JobId>& at) {
  more = true;
  if (at && (!last || last->view() < at->view())) {
    last = at;
  }
}

void JobPage::put_in_order(uint32_t limit) {
  const auto newer = [](const JobRecord& a, const JobRecord& b) {
    return a.id.view() > b.id.view();
  };
  std::sort(jobs.begin(), jobs.end(), newer);
  std::erase_if(
      jobs, [this](const JobRecord& job) { return more && last && job.id.view() < last->view(); });
  if (jobs.size() > limit) {
    jobs.resize(limit);
    more = true;
    last = jobs.back().id;
  }
}

}  // namespace penstock::queue
