// RecentEnds: the ends that this host has told a moment ago. Redis may fail over to a server that
// has not heard of them: then they are said again, so that no end is undone while this host lives.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "shared/base/clock.h"
#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {

class RecentEnds {
 public:
  static constexpr int64_t kKeptNs = 60 * kNsPerSec;
  static constexpr size_t kMost = 10'000;
  static constexpr size_t kMostBytes = 32U << 20;  // beyond it, the oldest go
  static constexpr size_t kMostAsked = 500;        // in one request

  // They live longer.
  RecentEnds(std::string queue, SharedOrder& order) : queue_(std::move(queue)), order_(order) {}
  ~RecentEnds() { *alive_ = false; }
  RecentEnds(const RecentEnds&) = delete;
  RecentEnds& operator=(const RecentEnds&) = delete;

  // `how`: as of SharedOrder::Known. `fence`: of the taking that ended so; 0: none did.
  void add(std::string id, uint64_t fence, char how, std::string result, int64_t keep_ms);
  // Redis may be another, or have lost something.
  void doubt();

 private:
  struct End {
    std::string id, result;
    uint64_t fence;
    char how;
    int64_t keep_ms;
    int64_t told_ns;
  };
  void forget_old();
  void told(const std::vector<std::string>& ids, const std::vector<int64_t>& states);

  const std::string queue_;
  SharedOrder& order_;
  std::deque<End> ends_;
  size_t bytes_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace penstock::queue
