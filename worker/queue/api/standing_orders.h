// StandingOrders: what an operator ordered (a queue paused, a worker scaled) holds over a restart.
//
// A crash must not resume a queue that was paused for a reason. But an operator that changes
// penstock.yaml and starts penstockd anew has said what is wanted: then the file wins, and the
// orders are forgotten.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/queue/store/store.h"

namespace penstock::queue {

class StandingOrders {
 public:
  // Nothing is kept without a store.
  explicit StandingOrders(Store* store) : store_(store) {}

  struct Found {
    std::vector<std::string> paused;         // queues
    std::map<std::string, uint32_t> scaled;  // workers, to so many processes
    bool forgotten = false;                  // there were some; the file has changed since
  };
  // The orders that hold at the start. `file` is a digest of the configuration.
  Result<Found> recover(uint64_t file);
  // The configuration was changed by a reload, and the orders still hold.
  void reloaded(uint64_t file);

  void paused(const std::string& queue, bool is);
  void scaled(const std::string& worker, std::optional<uint32_t> processes);  // none: as configured

 private:
  void set(const std::string& name, std::optional<int64_t> value);

  Store* store_;
};

}  // namespace penstock::queue
