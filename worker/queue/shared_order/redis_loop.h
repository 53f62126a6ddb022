// RedisLoops: penstockd's event loop, as connections to Redis need it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "shared/base/event_loop.h"
#include "shared/redis/loop.h"
#include "worker/queue/shared_order/name_lookup.h"

namespace penstock::queue {

// One for all connections of a process. It outlives the loops that it made.
class RedisLoops {
 public:
  // The event loop lives longer. `on_event` is called before anybody is told of one.
  explicit RedisLoops(
      EventLoop& events, std::function<void()> on_event = [] {})
      : events_(events), on_event_(std::move(on_event)), names_(events, on_event_) {}
  RedisLoops(const RedisLoops&) = delete;
  RedisLoops& operator=(const RedisLoops&) = delete;

  std::unique_ptr<redis::Loop> make();

  // Calls those whose time has come. The clock is monotonic.
  void advance_to(int64_t now_ns);
  int64_t next_event() const;  // INT64_MAX: never

 private:
  class One;

  EventLoop& events_;
  const std::function<void()> on_event_;
  NameLookup names_;
  std::vector<One*> loops_;
};

}  // namespace penstock::queue
