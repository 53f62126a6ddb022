// ReadyWorkers: the workers that may be given jobs: whose turn it is, and how much they can hold.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "worker/queue/bound/budget.h"
#include "worker/queue/bound/turns.h"
#include "worker/queue/jobs/suspects.h"
#include "worker/queue/jobs/worker_session.h"
#include "worker/queue/order/scheduler.h"

namespace penstock::queue {

class ReadyWorkers {
 public:
  // REQUIRES: it is removed before it is gone.
  void add(WorkerSession& worker) { workers_.push_back(&worker); }
  // False: it was not here.
  bool remove(WorkerSession& worker) { return std::erase(workers_, &worker) > 0; }
  template <typename Function>
  void each(Function&& function) const {
    for (WorkerSession* const worker : workers_) {
      function(*worker);
    }
  }

  // The worker on a device whose turn it is, of those with a free slot; nullptr when there is none.
  // A worker that is the only one may have no job. A worker that shares a pace with others goes
  // when it is its turn there, even among workers of other devices.
  WorkerSession* next(const Claims& device, const Suspects& suspects, int64_t now_ns);
  // A worker on the device that runs nothing, and the suspect for it; two nullptrs if there are
  // none.
  std::pair<WorkerSession*, Job*> next_suspect(const Claims& device, Suspects& suspects) const;
  // The worker with the most free slots that may take the lane's jobs; nullptr: all are busy.
  WorkerSession* least_busy(const Scheduler::Lane& lane, int64_t now_ns);
  // How many jobs of this lane its workers could be given now, while so many of each other lane are
  // on their way.
  using Coming = std::function<size_t(const Scheduler::Lane&)>;
  size_t room(const Scheduler::Lane& lane, const Suspects& suspects, const Coming& coming,
              int64_t now_ns);
  // The worker to show a request of this lane to (checks.h); nullptr: there is none.
  WorkerSession* checker(const Scheduler::Lane& lane, bool completion) const;

  // When a worker that next() or least_busy() has passed over for its pace may be given its job; it
  // is forgotten with that.
  int64_t opens_ns() const { return opens_ns_; }
  void forget_opens() { opens_ns_ = INT64_MAX; }

  // Tells the scheduler how many jobs of each lane can run at once, and which lanes share devices.
  void count_capacity(Scheduler& scheduler) const;
  // Jobs of each queue that can run at once. A queue that is left out has none.
  std::map<const Scheduler::Queue*, uint32_t> slots_by_queue() const;

 private:
  using ByDevice = std::map<const Budget*, std::map<const Scheduler::Lane*, uint32_t>>;
  template <typename Count>
  ByDevice by_device(Count&& count) const;
  bool takes_any(const WorkerSession& worker, const Suspects& suspects) const;

  WorkerSession* next_there(const Claims& device, const Suspects& suspects, int64_t now_ns);
  bool is_open(const WorkerSession& worker, int64_t now_ns);

  std::vector<WorkerSession*> workers_;
  int64_t opens_ns_ = INT64_MAX;
  std::vector<WorkerSession*> bidders_;  // scratch of next(), as is:
  std::vector<Bid> bids_;
};

}  // namespace penstock::queue
