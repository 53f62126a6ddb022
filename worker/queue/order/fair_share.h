// FairShare: the start tags of one class of jobs, so that owners get shares by weight.
//
// Start-time fair queueing (P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM
// 1996). An owner's job gets the tag S = max(V, F), F being where the owner's previous job ends;
// its own end is S + cost / weight. V, the virtual time, is the tag of the job last taken. Jobs go
// in the order of their tags. Then, over any time in which two owners both have jobs waiting, what
// they were served per weight differs by at most one job's cost per weight of each; and an owner
// who comes new stands before all but the next job of one who has flooded the queue.
//
// An owner who has jobs waiting goes on from F whatever V says, so the first of these bounds does
// not depend on V at all; V only says where newcomers begin.
//
// A job that its owner took back before it was taken is not charged, once the owner has none
// waiting.
//
// Memory: an owner has a flow here while it has jobs, or while F > V: a newcomer would begin at V
// anyway. When the last job of the class is gone, all is forgotten and V begins at 0 again. Flows
// without jobs are at most kMaxIdle; past that, the one that owes least is forgiven. A flow is kept
// with its owner (owners.h), where a look at the owner finds it.
//
// Numbers: tags are in 1/65536 of a unit of cost at weight 1. What the division leaves is carried
// to the owner's next job, so shares do not drift. One job moves a tag by at most 2^40; tags stop
// at 2^63 - 1. That is after years of a class that is never empty, at a million units a second;
// jobs then go first in, first out until it is empty once.
#pragma once

#include <cstdint>

#include "worker/queue/order/owners.h"
#include "worker/queue/order/timer_heap.h"

namespace penstock::queue {

class FairShare {
 public:
  using Flow = OwnerFlow;
  static constexpr uint64_t kMaxCost = uint64_t{1} << 24;
  static constexpr uint64_t kMaxWeight = uint64_t{1} << 16;
  static constexpr uint64_t kMaxSpan = (kMaxCost << 16) + kMaxWeight;  // of a job: end - start
  static constexpr size_t kMaxIdle = 1U << 16;

  // A job's tags. The one who holds them gives them back by leave().
  struct Tags {
    Flow* flow = nullptr;
    uint64_t start = 0;
    uint64_t end = 0;
  };

  // The owners outlive this.
  explicit FairShare(Owners& owners) noexcept : owners_(owners) {}

  bool empty() const noexcept { return jobs_ == 0; }
  uint64_t virtual_time() const noexcept { return static_cast<uint64_t>(now_); }
  // Virtual time never goes back.
  void raise(uint64_t virtual_time) noexcept;

  // A job came. O(1), and so are the others, beside the forgetting of those that matter no more.
  Tags arrive(Owner& owner, uint64_t cost, uint64_t weight);
  // The tag that a job of this owner would get now. nullptr: an owner who is not known yet.
  uint64_t next_start(const Owner* owner) const noexcept;
  void take(const Tags& tags) noexcept;       // it waits no longer, and is being served
  void come_back(const Tags& tags) noexcept;  // it waits again, at the tag it has
  void withdraw(const Tags& tags) noexcept;   // it waits no longer, and is not served
  // It is over. Its owner may be forgotten with it. REQUIRES: it does not wait.
  void leave(const Tags& tags) noexcept;

  size_t flows() const noexcept { return flows_; }

 private:
  friend class CarriedOrder;
  int64_t start_of(const Flow& flow) const noexcept;
  const Flow* find(const Owner& owner) const noexcept;
  Flow& flow_of(Owner& owner);
  void forget(Flow& flow) noexcept;

  Owners& owners_;
  TimerHeap idle_;  // flows without a job, by F
  int64_t now_ = 0;
  uint32_t jobs_ = 0;
  uint32_t flows_ = 0;
};

}  // namespace penstock::queue
