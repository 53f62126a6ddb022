// Layouts: which layouts of scripts (order_script::kLayout) a queue was ever kept in, at one Redis.
// Each is apart: its jobs are those of hosts of its version alone. Who finds another than its own
// says so in the log, for jobs may wait there that nobody runs.
//
//   PREFIX:layouts:{QUEUE}   set: the layouts that hosts have used
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "shared/redis/servers.h"

namespace penstock::queue {

class Layouts {
 public:
  static constexpr size_t kMost = 16;  // others, of one queue

  // `servers` lives longer.
  Layouts(redis::Servers& servers, std::string_view prefix) : servers_(servers), prefix_(prefix) {}
  ~Layouts() { *alive_ = false; }
  Layouts(const Layouts&) = delete;
  Layouts& operator=(const Layouts&) = delete;

  // The server of that queue is there: this host's layout is noted, and others are told of.
  void look(const std::string& queue);
  // Others that were found of that queue.
  std::set<std::string> others(const std::string& queue) const {
    const auto found = others_.find(queue);
    return found == others_.end() ? std::set<std::string>() : found->second;
  }

 private:
  void told(const std::string& queue, const redisReply& layouts);

  redis::Servers& servers_;
  const std::string prefix_;
  std::map<std::string, std::set<std::string>> others_;  // which was said, by queue
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace penstock::queue
