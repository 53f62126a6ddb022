// Hosts that share a Redis, in one loop.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/event_loop.h"
#include "shared/redis/subscription.h"
#include "worker/queue/shared_order/redis_loop.h"
#include "worker/queue/shared_order/scripts.h"

namespace penstock::queue {

class Turns {
 public:
  // Told of each turn's time, as penstockd tells its parts.
  std::function<void(int64_t)> on_turn = [](int64_t) {};
  // When on_turn has something to do by itself.
  std::function<int64_t()> next_event = [] { return INT64_MAX; };

  // Turns the loop until it is so. False: not within ten seconds.
  bool until(const std::function<bool()>& is_so) {
    const int64_t end_ns = monotonic_ns() + 10 * kNsPerSec;
    while (!is_so()) {
      int64_t now_ns = monotonic_ns();
      if (now_ns > end_ns) {
        return false;
      }
      events.run_once(now_ns, std::min({loops.next_event(), next_event(), end_ns}));
      now_ns = monotonic_ns();
      loops.advance_to(now_ns);
      on_turn(now_ns);
    }
    return true;
  }

  EventLoop events = std::move(*EventLoop::create());
  RedisLoops loops{events};
};

class Host final : redis::Servers::User {
 public:
  Host(Turns& turns, const std::string& socket, const std::string& password = {})
      : servers(
            {.password = password,
             .prefix = "test",
             .layout = order_script::kLayout,
             .scripts = order_script::all(),
             .host = "host",
             .patience_ms = 1000,
             .counts_hosts = false},
            {.addresses = {{.path = socket}}}, [&turns] { return turns.loops.make(); }, *this),
        subscription(servers, "x", turns.loops.make()) {
    servers.start();
    subscription.start();
  }
  bool up() const { return servers.ready("x") && subscription.up(); }

  redis::Servers servers;
  redis::Subscription subscription;

 private:
  void on_ready(std::string_view) noexcept override {}
  void on_lost(std::string_view) noexcept override {}
  void on_hosts(uint64_t) noexcept override {}
};

}  // namespace penstock::queue
