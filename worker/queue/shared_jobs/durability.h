// Durability: whether a Redis keeps what it is told, as the 202 of `promise: fsync` says. It is
// looked at once it is there, and where it does not, that is said in the log: what a 202 means
// then.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "shared/redis/servers.h"

namespace penstock::queue {

class Durability {
 public:
  explicit Durability(redis::Servers& servers) : servers_(servers) {}
  ~Durability() { *alive_ = false; }
  Durability(const Durability&) = delete;
  Durability& operator=(const Durability&) = delete;

  // The server of that key is there, perhaps for the first time.
  void look(const std::string& key);

  struct Kept {
    std::string appendonly, appendfsync;  // empty: it does not say
    std::string warning;                  // see what_a_promise_means()
    bool is_current = true;               // it was looked at since forget()
  };
  // By the servers.
  const std::map<std::string, Kept>& kept() const { return kept_; }
  // Each that is current has on its disk what it has answered.
  bool is_kept() const;
  // Queues may be at others from now on.
  void forget();

 private:
  struct Asked;
  void told(const Asked& asked);

  redis::Servers& servers_;
  std::map<std::string, Kept> kept_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// What is to be said of these settings; empty: nothing. Both empty: they could not be had, for this
// reason.
std::string what_a_promise_means(std::string_view appendonly, std::string_view appendfsync,
                                 std::string_view why);

}  // namespace penstock::queue
