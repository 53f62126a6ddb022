// OwnedJobs: the promised jobs of each owner that have not ended, in the order they came.
//
// A treap (C. R. Aragon, R. G. Seidel, "Randomized Search Trees", FOCS 1989) that goes through the
// jobs themselves: a search tree by owner and age, and a heap by the random end that their ids have
// anyway. It allocates nothing, so what a job costs it is two pointers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "worker/queue/jobs/job.h"

namespace penstock::queue {

class OwnedJobs {
 public:
  // O(log n). REQUIRES: it has an owner, which stays, and is not in.
  void insert(Job& job) noexcept {
    const Key key = key_of(job);
    Job** link = &root_;
    while (*link != nullptr && above(**link, job)) {
      link = &towards(key, **link);
    }
    Job* below = std::exchange(*link, &job);  // is split in two
    Job** before = &job.older;
    Job** after = &job.newer;
    while (below != nullptr) {
      Job**& side = key_of(*below) < key ? before : after;
      *side = below;
      side = &towards(key, *below);
      below = *side;
    }
    *before = *after = nullptr;
  }

  // O(log n). REQUIRES: it is in.
  void erase(Job& job) noexcept {
    const Key key = key_of(job);
    Job** link = &root_;
    while (*link != &job) {
      link = &towards(key, **link);
    }
    Job* before = job.older;
    Job* after = job.newer;
    while (before != nullptr && after != nullptr) {  // are joined
      if (above(*before, *after)) {
        *link = before;
        link = &before->newer;
        before = *link;
      } else {
        *link = after;
        link = &after->older;
        after = *link;
      }
    }
    *link = before != nullptr ? before : after;
  }

  // At most `most` jobs of an owner whose sequence is less than `before`, the newest first. O(log
  // n), and O(1) for each that is returned.
  std::vector<Job*> list(uint64_t owner, uint64_t before, size_t most) const {
    std::vector<Job*> jobs;
    append(root_, {owner, 0}, {owner, before}, most, jobs);
    return jobs;
  }

 private:
  using Key = std::pair<uint64_t, uint64_t>;  // owner, sequence

  static Key key_of(const Job& job) noexcept { return {job.owner, job.ulid.sequence()}; }
  static bool above(const Job& a, const Job& b) noexcept { return a.ulid.low > b.ulid.low; }
  static Job*& towards(const Key& key, Job& job) noexcept {
    return key_of(job) < key ? job.newer : job.older;
  }

  // Those of a subtree from `first` on and before `end`.
  static void append(Job* top, const Key& first, const Key& end, size_t most,
                     std::vector<Job*>& jobs) {
    if (top == nullptr || jobs.size() == most) {
      return;
    }
    const bool early = key_of(*top) < first;
    const bool late = key_of(*top) >= end;
    if (!late) {
      append(top->newer, first, end, most, jobs);
    }
    if (!early && !late && jobs.size() < most) {
      jobs.push_back(top);
    }
    if (!early) {
      append(top->older, first, end, most, jobs);
    }
  }

  Job* root_ = nullptr;
};

}  // namespace penstock::queue
