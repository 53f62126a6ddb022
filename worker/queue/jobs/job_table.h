// JobTable: owns every job that penstockd has in memory, and finds it by its id.
//
// Hundreds of thousands may be queued, and nothing else of most of them is in memory. So jobs lie
// side by side in a pool, without a word of malloc's before each. When the last of many is gone, so
// is the pool's memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <utility>

#include "shared/base/chained_table.h"
#include "worker/queue/jobs/job.h"

namespace penstock::queue {

class JobTable {
 public:
  JobTable() = default;
  ~JobTable() {
    jobs_.each([this](Job& job) { memory_.delete_object(&job); });
  }

  size_t size() const noexcept { return jobs_.size(); }

  // A new job, at one address until it is erased. REQUIRES: no job of that id is in.
  Job& add(const Ulid& id) {
    Job& job = *memory_.new_object<Job>();
    job.ulid = id;
    jobs_.insert(job);
    most_ = std::max(most_, jobs_.size());
    return job;
  }

  // nullptr when there is none.
  Job* find(const Ulid& id) const noexcept {
    return jobs_.find(id.low, [&](const Job& each) { return each.ulid == id; });
  }

  // Destroys the job. REQUIRES: it is in.
  void erase(Job& job) noexcept {
    jobs_.erase(job);
    memory_.delete_object(&job);
    if (jobs_.size() == 0 && std::exchange(most_, 0) > kFew) {
      pool_.release();
    }
  }

  // Visits every job; `visit` may erase the one it is at, and no other.
  template <typename Visit>
  void each(Visit&& visit) {
    jobs_.each(visit);
  }

 private:
  static constexpr size_t kFew = 1000;

  std::pmr::unsynchronized_pool_resource pool_;
  std::pmr::polymorphic_allocator<> memory_{&pool_};
  ChainedTable<Job> jobs_;
  size_t most_ = 0;  // jobs since the pool was last empty
};

}  // namespace penstock::queue
