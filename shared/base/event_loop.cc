#include "shared/base/event_loop.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "shared/base/clock.h"

namespace penstock {

Result<EventLoop> EventLoop::create() {
  EventLoop loop;
  loop.epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!loop.epoll_.valid()) {
    return Error{std::string("epoll_create1 failed: ") + std::strerror(errno)};
  }
  return loop;
}

Status EventLoop::add(int fd, uint32_t events, Handler* handler) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = handler;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return Error{std::string("epoll_ctl failed: ") + std::strerror(errno)};
  }
  return Ok{};
}

void EventLoop::modify(int fd, uint32_t events, Handler* handler) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = handler;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::remove(int fd, Handler* handler) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  for (int i = told_; i < ready_count_; ++i) {
    if (ready_[static_cast<size_t>(i)].data.ptr == handler) {
      ready_[static_cast<size_t>(i)].data.ptr = nullptr;
    }
  }
}

int EventLoop::run_once(int64_t now_ns, int64_t deadline_ns) {
  wait(now_ns, deadline_ns);
  return tell();
}

void EventLoop::wait(int64_t now_ns, int64_t deadline_ns) {
  int timeout_ms = -1;
  if (deadline_ns != INT64_MAX) {
    const int64_t wait_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;  // it may be INT64_MIN
    timeout_ms = static_cast<int>(std::min<int64_t>((wait_ns + kNsPerMs - 1) / kNsPerMs, 60'000));
  }
  ready_count_ = std::max(0, ::epoll_wait(epoll_.get(), ready_.data(), kBatch, timeout_ms));
}

int EventLoop::tell() {
  for (told_ = 0; told_ < ready_count_;) {
    const epoll_event& event = ready_[static_cast<size_t>(told_++)];
    if (event.data.ptr != nullptr) {
      static_cast<Handler*>(event.data.ptr)->on_events(event.events);
    }
  }
  const int count = ready_count_;
  ready_count_ = told_ = 0;
  return count;
}

}  // namespace penstock
