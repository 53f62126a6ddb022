// Loop: what a connection needs of the event loop that it lives on. Each connection has one of its
// own.
#pragma once

#include <cstdint>
#include <string_view>

namespace penstock::redis {

// Told of what happens; the connection.
class Events {
 public:
  virtual void on_readable() noexcept = 0;
  virtual void on_writable() noexcept = 0;
  virtual void on_time() noexcept = 0;
  // A name's number; empty: it has none.
  virtual void on_found(std::string_view ip) noexcept = 0;

 protected:
  ~Events() = default;
};

class Loop {
 public:
  virtual ~Loop() = default;
  // Events of `fd` from here on, level-triggered, of the kinds that are wanted. False: no room.
  // The fd is not the loop's: close() forgets it, before its owner closes it.
  virtual bool open(int fd, Events& events) noexcept = 0;
  virtual void want(bool reading, bool writing) noexcept = 0;
  virtual void close() noexcept = 0;
  // Looks up a host's name, without waiting: on_found once, maybe at once, unless close() comes
  // first. False: there is nobody to ask.
  virtual bool find(std::string_view name, Events& events) noexcept = 0;
  // on_time once, in so many milliseconds; takes the place of what was set before. A process that
  // is to end does not stay for it.
  virtual void set_timer(Events& events, int64_t after_ms) noexcept = 0;
  virtual void clear_timer() noexcept = 0;
};

}  // namespace penstock::redis
