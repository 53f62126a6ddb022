// RedisMemory: how much of its maxmemory each Redis has taken. When that is full it refuses new
// jobs, and pieces of answers; ends it takes all the same, beyond what it was allowed. So from
// kFull on, and until kRoomAgain, no new jobs are let in: what is there has room to end.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "shared/redis/servers.h"

namespace penstock::queue {

class RedisMemory {
 public:
  static constexpr double kFull = 0.9;  // of maxmemory
  static constexpr double kRoomAgain = 0.87;

  explicit RedisMemory(redis::Servers& servers) : servers_(servers) {}
  ~RedisMemory() { *alive_ = false; }
  RedisMemory(const RedisMemory&) = delete;
  RedisMemory& operator=(const RedisMemory&) = delete;

  // Asks the server of that key.
  void look(const std::string& key);
  // As it last said; false where it has not, or has no maxmemory.
  bool is_nearly_full(std::string_view key) const;

 private:
  void told(const std::string& server, std::string_view info);

  redis::Servers& servers_;
  std::map<std::string, bool> full_;  // by server
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// The share of its maxmemory that is taken, by what INFO memory says; 0: it has none.
double share_taken(std::string_view info);

}  // namespace penstock::queue
