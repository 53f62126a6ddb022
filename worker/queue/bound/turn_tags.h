// TurnTags: what is kept of the turns (turns.h) in the budget of a device, and of a worker on it.
#pragma once

#include <cstdint>
#include <map>

namespace penstock::queue {

// Times are of the device: what its slots do together.
struct TurnTags {
  // By class. For a device: where the last job that was given there begins. For a worker: where its
  // own last job ends, if that is later.
  std::map<int64_t, int64_t> by_class;
  int64_t given_ns = INT64_MIN;  // a worker's last
  uint64_t given = 0;            // jobs, on a device
  uint64_t promoted_at = 0;
};

}  // namespace penstock::queue
