// Owners: who has jobs in a queue, or owes for some (fair_share.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "worker/queue/fair_share.h"

namespace penstock::queue {

struct Owner {
  uint64_t id = 0;
  uint32_t jobs = 0;                       // known to the scheduler
  uint32_t scheduled = 0;                  // of those
  std::unique_ptr<FairShare::Flow> flows;  // one for each class in which it matters

  uint32_t waiting() const noexcept {  // delayed and scheduled ones included
    uint32_t waiting = scheduled;
    for (const auto* flow = flows.get(); flow != nullptr; flow = flow->next()) {
      waiting += flow->waiting();
    }
    return waiting;
  }
};

// An Owner stays at one address. O(1).
class Owners {
 public:
  Owner& operator[](uint64_t id) {
    Owner& owner = owners_[id];
    owner.id = id;
    return owner;
  }
  // nullptr when there is none.
  const Owner* find(uint64_t id) const noexcept {
    const auto found = owners_.find(id);
    return found == owners_.end() ? nullptr : &found->second;
  }
  // Forgets the owner if nothing is left of it.
  void release(const Owner& owner) noexcept {
    if (owner.jobs == 0 && owner.flows == nullptr) {
      owners_.erase(owner.id);
    }
  }
  size_t size() const noexcept { return owners_.size(); }

 private:
  std::unordered_map<uint64_t, Owner> owners_;
};

}  // namespace penstock::queue
