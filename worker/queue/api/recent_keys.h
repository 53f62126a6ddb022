// RecentKeys: the latest idempotency keys that this host has brought to a shared queue. While Redis
// is away nobody knows what became of their jobs: who asks with one of them again is not served
// from this host's own queue, as it might run twice.
#pragma once

#include <cstdint>
#include <deque>
#include <unordered_set>

#include "shared/limit/siphash.h"

namespace penstock::queue {

class RecentKeys {
 public:
  static constexpr size_t kMost = 100'000;

  void add(const limit::Hash128& key) {
    if (!known_.insert(key.lo).second) {
      return;
    }
    order_.push_back(key.lo);
    if (order_.size() > kMost) {
      known_.erase(order_.front());
      order_.pop_front();
    }
  }
  bool contains(const limit::Hash128& key) const { return known_.contains(key.lo); }

 private:
  std::unordered_set<uint64_t> known_;
  std::deque<uint64_t> order_;
};

}  // namespace penstock::queue
