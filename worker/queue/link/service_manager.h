// ServiceManager: systemd, or whatever else started penstockd and wants to hear how it is.
//
// It says in the environment what it wants, and that is taken out of it, so that no worker inherits
// it. Without such words every call here does nothing. Nothing blocks: a word that finds no room is
// said again with the next one.
//
// Protocol: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shared/base/fd.h"
#include "shared/base/result.h"

namespace penstock::queue {

class ServiceManager {
 public:
  // NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES. An
  // Error: sockets were handed over, but not one Unix socket alone. It says what was.
  static Result<ServiceManager> from_environment();

  // The one that an earlier life of this process spoke to; `every_ns` 0: it does not watch.
  static ServiceManager at(std::string_view address, int64_t every_ns, uint64_t watchdog_us);
  // Empty: there is none.
  std::string_view address() const { return notify_.valid() ? to_ : std::string_view(); }
  int64_t watched_every_ns() const { return watched_ ? every_ns_ : 0; }
  uint64_t watchdog_us() const { return watchdog_us_; }

  // The socket that was handed over, which is bound and listens already. It is invalid where there
  // was none, and from the second call on.
  Fd take_socket() { return std::move(socket_); }

  void ready();
  // Until ready(). Until then the loop may stand still for as long as a start may take.
  void reloading(int64_t monotonic_ns);
  void stopping();
  // Tells that the loop turns, as often as is wanted of it, and with it the status line, if it has
  // changed. Call it in each turn.
  template <class Status>
  void advance_to(int64_t now_ns, const Status& status) {
    if (due_ns_ <= now_ns) {
      tell_alive(now_ns, status());
    }
  }
  int64_t next_event() const { return due_ns_; }  // INT64_MAX: never

 private:
  bool say(std::string_view words) const;
  void tell_alive(int64_t now_ns, std::string status);

  Fd notify_;
  std::string to_;  // the notify socket's address, as sun_path has it
  Fd socket_;
  bool watched_ = false;
  int64_t every_ns_ = 0;
  uint64_t watchdog_us_ = 0;  // how long the loop may stand still
  bool patient_ = false;      // it was told to wait for longer
  int64_t due_ns_ = INT64_MAX;
  std::string status_;  // that was said last
};

}  // namespace penstock::queue
