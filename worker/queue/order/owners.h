// Owners: who has jobs in a queue, or owes for some (fair_share.h): those whose shares jobs take,
// which need not be who may see them.
//
// A chained hash table whose chains go through the owners themselves, with an owner's first flow in
// the same piece of memory: whoever is found was looked for in two places, not in six.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "worker/queue/order/timer_heap.h"

namespace penstock::queue {

class FairShare;
struct Owner;

// What is known of one owner in one class.
class OwnerFlow : private TimerHeap::Node {
 public:
  Owner& owner() const noexcept { return *owner_; }

 private:
  friend class FairShare;
  friend class OwnerFlows;
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
  OwnerFlow first_;
};

struct Owner {
  uint64_t id = 0;
  Owner* next = nullptr;   // of the same bucket
  uint32_t jobs = 0;       // known to the scheduler
  uint32_t scheduled = 0;  // of those
  OwnerFlows flows;        // one for each class in which it matters

  uint32_t waiting() const noexcept { return scheduled + flows.waiting(); }
};

// An Owner stays at one address. O(1).
class Owners {
 public:
  Owners() = default;
  Owners(const Owners&) = delete;
  Owners& operator=(const Owners&) = delete;
  ~Owners() {
    for (Owner* owner : buckets_) {
      while (owner != nullptr) {
        delete std::exchange(owner, owner->next);
      }
    }
  }

  // Makes the owner known.
  Owner& operator[](uint64_t id) {
    if (size_ >= buckets_.size()) {
      grow();
    }
    Owner*& bucket = bucket_of(id);
    Owner* owner = find_in(bucket, id);
    if (owner == nullptr) {
      owner = new Owner{.id = id, .next = bucket};
      bucket = owner;
      ++size_;
    }
    return *owner;
  }
  // nullptr when there is none.
  const Owner* find(uint64_t id) const noexcept {
    return size_ == 0 ? nullptr : find_in(const_cast<Owners*>(this)->bucket_of(id), id);
  }
  // Forgets the owner if nothing is left of it.
  void release(Owner& owner) noexcept {
    if (owner.jobs > 0 || !owner.flows.empty()) {
      return;
    }
    Owner** link = &bucket_of(owner.id);
    while (*link != &owner) {
      link = &(*link)->next;
    }
    *link = owner.next;
    delete &owner;
    if (--size_ == 0) {
      buckets_ = {};  // gives memory back
    }
  }
  size_t size() const noexcept { return size_; }

 private:
  static Owner* find_in(Owner* bucket, uint64_t id) noexcept {
    while (bucket != nullptr && bucket->id != id) {
      bucket = bucket->next;
    }
    return bucket;
  }
  // Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4). Ids are keyed hashes: nobody can choose them.
  Owner*& bucket_of(uint64_t id) noexcept {
    return buckets_[(id * 0x9e3779b97f4a7c15 >> 32) & (buckets_.size() - 1)];
  }
  void grow() {
    std::vector<Owner*> few(buckets_.empty() ? 16 : 2 * buckets_.size());
    few.swap(buckets_);
    for (Owner* owner : few) {
      while (owner != nullptr) {
        Owner* const moved = std::exchange(owner, owner->next);
        Owner*& bucket = bucket_of(moved->id);
        moved->next = std::exchange(bucket, moved);
      }
    }
  }

  std::vector<Owner*> buckets_;  // as many as a power of two, and at least one an owner
  size_t size_ = 0;
};

}  // namespace penstock::queue
