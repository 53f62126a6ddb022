// Owners: those who have jobs in a queue, or owe for some (fair_share.h). They are the ones whose
// shares the jobs take, who need not be those that may see them.
//
// An owner's first flow is in the same piece of memory as the owner, and so is its link in the
// table: a look-up touches two places in memory, not six.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "shared/base/chained_table.h"
#include "worker/queue/order/timer_heap.h"

namespace penstock::queue {

class CarriedOrder;
class FairShare;
struct Owner;

// What is known of one owner in one class.
class OwnerFlow : private TimerHeap::Node {
 public:
  Owner& owner() const noexcept { return *owner_; }

 private:
  friend class FairShare;
  friend class OwnerFlows;
  friend class CarriedOrder;
  uint32_t jobs_ = 0;  // here: waiting, delayed, running
  uint32_t waiting_ = 0;
  uint32_t weight_ = 1;
  const FairShare* share_ = nullptr;  // nullptr: unused
  Owner* owner_ = nullptr;
  int64_t end_ = 0;     // F of the job that came last
  int64_t served_ = 0;  // F of the last that was taken
  uint64_t rest_ = 0;   // of the last division
  std::unique_ptr<OwnerFlow> next_;
};

// Those of one owner. The first is kept right here, for most owners have but one.
class OwnerFlows {
 public:
  bool empty() const noexcept { return first_.share_ == nullptr && first_.next_ == nullptr; }
  uint32_t waiting() const noexcept {
    uint32_t waiting = 0;
    for (const OwnerFlow* flow = &first_; flow != nullptr; flow = flow->next_.get()) {
      waiting += flow->waiting_;
    }
    return waiting;
  }

 private:
  friend class FairShare;
  friend class CarriedOrder;
  OwnerFlow first_;
};

struct Owner {
  uint64_t id = 0;
  Owner* next_in_table = nullptr;
  uint32_t jobs = 0;       // known to the scheduler
  uint32_t scheduled = 0;  // of those
  OwnerFlows flows;        // one for each class in which it matters

  uint32_t waiting() const noexcept { return scheduled + flows.waiting(); }
  uint64_t hash() const noexcept { return id; }  // a keyed hash: nobody can choose it
};

// An Owner stays at one address. O(1).
class Owners {
 public:
  Owners() = default;
  ~Owners() {
    owners_.each([](Owner& owner) { delete &owner; });
  }

  // Makes the owner known.
  Owner& operator[](uint64_t id) {
    Owner* owner = lookup(id);
    if (owner == nullptr) {
      owner = new Owner{.id = id};
      owners_.insert(*owner);
    }
    return *owner;
  }
  // nullptr when there is none.
  const Owner* find(uint64_t id) const noexcept { return lookup(id); }
  // Forgets the owner if nothing is left of it.
  void release(Owner& owner) noexcept {
    if (owner.jobs == 0 && owner.flows.empty()) {
      owners_.erase(owner);
      delete &owner;
    }
  }
  size_t size() const noexcept { return owners_.size(); }
  template <typename Visit>
  void each(Visit&& visit) const {
    owners_.each(visit);
  }

 private:
  Owner* lookup(uint64_t id) const noexcept {
    return owners_.find(id, [id](const Owner& each) { return each.id == id; });
  }

  ChainedTable<Owner> owners_;
};

}  // namespace penstock::queue
