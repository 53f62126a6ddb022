#include "worker/queue/jobs/suspects.h"

#include <algorithm>

namespace penstock::queue {

void Suspects::add(const Scheduler::Lane& lane, const std::vector<Job*>& jobs) {
  const auto middle = jobs.begin() + static_cast<ptrdiff_t>((jobs.size() + 1) / 2);
  add_group(lane, {jobs.begin(), middle});
  add_group(lane, {middle, jobs.end()});
}

void Suspects::add_group(const Scheduler::Lane& lane, std::vector<Job*> jobs) {
  if (jobs.empty()) {
    return;
  }
  last_ = last_ == UINT32_MAX ? 1 : last_ + 1;
  for (Job* const job : jobs) {
    job->extra().suspect = last_;
  }
  std::reverse(jobs.begin(), jobs.end());
  groups_.push_back({last_, &lane, std::move(jobs)});
}

Job* Suspects::take(const Scheduler::Lane& lane, uint32_t group) {
  const auto found = std::find_if(groups_.begin(), groups_.end(), [&](const Group& each) {
    return each.lane == &lane && (group == 0 || each.number == group);
  });
  if (found == groups_.end()) {
    return nullptr;
  }
  Job* const job = found->waiting.back();
  found->waiting.pop_back();
  if (found->waiting.empty()) {
    groups_.erase(found);
  }
  return job;
}

bool Suspects::waiting(const Scheduler::Lane& lane) const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [&](const Group& each) { return each.lane == &lane; });
}

void Suspects::forget(Job& job) {
  if (job.more == nullptr || job.more->suspect == 0) {
    return;
  }
  const uint32_t number = std::exchange(job.more->suspect, 0);
  const auto found = std::find_if(groups_.begin(), groups_.end(),
                                  [&](const Group& each) { return each.number == number; });
  if (found != groups_.end()) {
    std::erase(found->waiting, &job);
    if (found->waiting.empty()) {
      groups_.erase(found);
    }
  }
}

std::vector<Job*> Suspects::release(const std::function<bool(const Scheduler::Lane&)>& gone) {
  std::vector<Job*> released;
  std::erase_if(groups_, [&](const Group& group) {
    if (!gone(*group.lane)) {
      return false;
    }
    for (Job* const job : group.waiting) {
      job->more->suspect = 0;
      released.push_back(job);
    }
    return true;
  });
  return released;
}

void Suspects::each(const std::function<void(const Job&, const Scheduler::Lane&)>& told) const {
  for (const Group& group : groups_) {
    for (const Job* const job : group.waiting) {
      told(*job, *group.lane);
    }
  }
}

void Suspects::add_again(const Scheduler::Lane& lane, Job& job) {
  const uint32_t number = job.more->suspect;
  if (groups_.empty() || groups_.back().number != number) {
    groups_.push_back({number, &lane, {}});
  }
  groups_.back().waiting.push_back(&job);
  note(number);
}

}  // namespace penstock::queue
