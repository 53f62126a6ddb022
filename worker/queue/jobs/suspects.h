// Suspects: jobs that ran together when their worker crashed. One of them may have done it.
//
// A request that crashes its worker must not take others along. So a job that did not run alone
// does not pay for a crash:
//
//     n run, the worker crashes ──▶ two groups, each half of them
//     a group runs, by itself, on a worker that runs nothing else:
//         a job ends ──▶ it is no suspect any more
//         the worker crashes ──▶ two groups again; or, of a group of one, an attempt has failed
//
// A request that always crashes is thus alone after log2(n) crashes, and has failed all `attempts`
// after as many more; the others are never charged. ("Group testing", R. Dorfman, "The Detection of
// Defective Members of Large Populations", 1943, by halves.)
//
// Groups belong to the lane whose worker crashed, and go before all that waits there: each of their
// jobs had been taken already. While they wait, the Scheduler sets them apart.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <list>
#include <vector>

#include "worker/queue/jobs/job.h"

namespace penstock::queue {

class Suspects {
 public:
  // Two groups of these jobs, in their order; of one job, one. REQUIRES: they are set apart.
  void add(const Scheduler::Lane& lane, const std::vector<Job*>& jobs);
  // A worker of the lane that runs jobs of `group` (0: nothing at all) may take this one; nullptr:
  // none. It then waits here no longer, and stays a suspect.
  Job* take(const Scheduler::Lane& lane, uint32_t group);
  bool empty() const { return groups_.empty(); }
  bool waiting(const Scheduler::Lane& lane) const;
  // It has ended, or is no suspect any more. Nothing happens if it is none.
  void forget(Job& job);
  // Jobs of lanes for which `gone` is true are suspects no longer: nobody will take them.
  std::vector<Job*> release(const std::function<bool(const Scheduler::Lane&)>& gone);

  // As the next penstockd takes them over: those that wait, in an order in which add_again() makes
  // the same groups of them. `job.more->suspect` goes along.
  void each(const std::function<void(const Job&, const Scheduler::Lane&)>& told) const;
  void add_again(const Scheduler::Lane& lane, Job& job);
  // Of one that runs: later groups have other numbers.
  void note(uint32_t group) { last_ = std::max(last_, group); }

 private:
  struct Group {
    uint32_t number;
    const Scheduler::Lane* lane;
    std::vector<Job*> waiting;  // the next is the last
  };
  void add_group(const Scheduler::Lane& lane, std::vector<Job*> jobs);

  std::list<Group> groups_;
  uint32_t last_ = 0;
};

}  // namespace penstock::queue
