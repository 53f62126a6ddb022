// EventLoop: epoll, level-triggered, one thread.
//
// Why not a library: penstockd keeps thousands of idle connections (a kilobyte each is the budget)
// and answers a request in two system calls; a general reactor costs more of both. This is the
// whole of what it needs.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/result.h"

namespace penstock {

class EventLoop {
 public:
  // Told of readiness. Must stay alive until after remove(); may remove itself or others while
  // being told.
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void on_events(uint32_t epoll_events) = 0;
  };

  static Result<EventLoop> create();

  // The loop does not own fd. Events are EPOLLIN / EPOLLOUT; errors and hang-ups are always told.
  Status add(int fd, uint32_t events, Handler* handler);
  void modify(int fd, uint32_t events, Handler* handler);
  // Events of this fd still in flight are dropped.
  void remove(int fd, Handler* handler);

  // Waits until something is ready or `deadline_ns` (monotonic; INT64_MAX: no deadline), then tells
  // each handler. Returns the number told.
  int run_once(int64_t now_ns, int64_t deadline_ns);
  // The same in two steps, for who wants to look at the clock in between.
  void wait(int64_t now_ns, int64_t deadline_ns);
  int tell();

 private:
  static constexpr int kBatch = 256;
  Fd epoll_;
  std::vector<epoll_event> ready_ = std::vector<epoll_event>(kBatch);
  int told_ = 0;  // position in ready_ while telling
  int ready_count_ = 0;
};

}  // namespace penstock
