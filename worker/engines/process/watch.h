// Watch: the descriptors of all programs of an engine in one epoll, which is the engine's wake_fd.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <cstdint>

#include "shared/base/fd.h"

namespace penstock::process {

enum class Stream : uint8_t { kInput, kOutput, kErrors, kControl, kGone };

struct Readiness {
  size_t slot;
  Stream stream;
};

// One slot's view of the engine's epoll. A descriptor that is closed is watched no more.
class Watch {
 public:
  Watch(int epoll, size_t slot) : epoll_(epoll), slot_(slot) {}

  void add(int fd, Stream stream, uint32_t events) const {
    control(EPOLL_CTL_ADD, fd, stream, events);
  }
  void change(int fd, Stream stream, uint32_t events) const {
    control(EPOLL_CTL_MOD, fd, stream, events);
  }
  void remove(int fd) const { ::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr); }

  static Readiness read(uint64_t data) {
    return {static_cast<size_t>(data >> 8), static_cast<Stream>(data & 0xff)};
  }

 private:
  void control(int what, int fd, Stream stream, uint32_t events) const {
    epoll_event event{};
    event.events = events;
    event.data.u64 = uint64_t{slot_} << 8 | static_cast<uint64_t>(stream);
    ::epoll_ctl(epoll_, what, fd, &event);
  }

  int epoll_;
  size_t slot_;
};

}  // namespace penstock::process
