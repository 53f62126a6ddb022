#include "worker/queue/link/service_manager.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <utility>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdlib>

#include "shared/base/clock.h"
#include "shared/base/unix_socket.h"

namespace penstock::queue {
namespace {

constexpr int kFirstFd = 3;  // SD_LISTEN_FDS_START
constexpr int64_t kStatusNs = 5 * kNsPerSec;
constexpr uint64_t kStartUs = 300 * uint64_t{1'000'000};  // TimeoutStartSec= of the unit

// The variable's value; afterwards there is none.
std::string take(const char* name) {
  const char* const value = ::getenv(name);
  std::string taken = value == nullptr ? "" : value;
  ::unsetenv(name);
  return taken;
}

uint64_t number(std::string_view text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// What is meant for another process has been inherited.
bool is_ours(const std::string& pid) { return pid == std::to_string(::getpid()); }

Result<Fd> handed_over(uint64_t count) {
  if (count != 1) {
    return Error{std::to_string(count) +
                 " sockets were handed over; penstockd listens on one: let the socket unit have "
                 "one ListenStream="};
  }
  Fd socket(kFirstFd);
  int type = 0;
  int listens = 0;
  socklen_t size = sizeof type;
  sockaddr_un address{};
  socklen_t address_size = sizeof address;
  const bool good =
      ::getsockopt(kFirstFd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM &&
      ::getsockopt(kFirstFd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0 &&
      ::getsockname(kFirstFd, reinterpret_cast<sockaddr*>(&address), &address_size) == 0 &&
      address.sun_family == AF_UNIX;
  if (!good) {
    return Error{
        "what was handed over is no Unix socket that listens; let the socket unit have "
        "ListenStream=PATH"};
  }
  ::fcntl(kFirstFd, F_SETFD, FD_CLOEXEC);
  ::fcntl(kFirstFd, F_SETFL, ::fcntl(kFirstFd, F_GETFL) | O_NONBLOCK);
  return socket;
}

}  // namespace

Result<ServiceManager> ServiceManager::from_environment() {
  ServiceManager manager;
  const uint64_t sockets = number(take("LISTEN_FDS"));
  const bool sockets_ours = is_ours(take("LISTEN_PID"));
  take("LISTEN_FDNAMES");
  manager.to_ = take("NOTIFY_SOCKET");
  const uint64_t watchdog_us = number(take("WATCHDOG_USEC"));
  const std::string watchdog_pid = take("WATCHDOG_PID");
  if (sockets > 0 && sockets_ours) {
    auto socket = handed_over(sockets);
    if (!socket) {
      return socket.error();
    }
    manager.socket_ = *std::move(socket);
  }
  if (manager.to_.empty() || !unix_address(manager.to_)) {
    return manager;
  }
  if (manager.to_.front() == '@') {
    manager.to_.front() = '\0';  // an abstract address
  }
  manager.notify_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  manager.watched_ = watchdog_us > 0 && (watchdog_pid.empty() || is_ours(watchdog_pid));
  manager.watchdog_us_ = watchdog_us;
  manager.every_ns_ =
      manager.watched_
          ? std::min(kStatusNs, static_cast<int64_t>(watchdog_us) * (kNsPerSec / 1'000'000) / 2)
          : kStatusNs;
  return manager;
}

ServiceManager ServiceManager::at(std::string_view address, int64_t every_ns,
                                  uint64_t watchdog_us) {
  ServiceManager manager;
  if (!address.empty()) {
    manager.to_ = address;
    manager.notify_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    manager.watched_ = every_ns > 0;
    manager.every_ns_ = manager.watched_ ? every_ns : kStatusNs;
    manager.watchdog_us_ = watchdog_us;
    manager.patient_ = manager.watched_;
  }
  return manager;
}

bool ServiceManager::say(std::string_view words) const {
  if (!notify_.valid()) {
    return true;
  }
  const sockaddr_un address = *unix_address(to_);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + to_.size());
  return ::sendto(notify_.get(), words.data(), words.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                  reinterpret_cast<const sockaddr*>(&address), size) >= 0;
}

void ServiceManager::ready() {
  if (std::exchange(patient_, false)) {
    say("WATCHDOG=1\nWATCHDOG_USEC=" + std::to_string(watchdog_us_) + "\n");
  }
  say("READY=1\n");
  if (notify_.valid()) {
    due_ns_ = 0;
  }
}

void ServiceManager::reloading(int64_t monotonic_ns) {
  if (watched_) {
    patient_ = say("WATCHDOG=1\nWATCHDOG_USEC=" + std::to_string(kStartUs) + "\n");
  }
  say("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(monotonic_ns / kNsPerUs) + "\n");
}

void ServiceManager::stopping() { say("STOPPING=1\n"); }

void ServiceManager::tell_alive(int64_t now_ns, std::string status) {
  std::string words = watched_ ? "WATCHDOG=1\n" : "";
  const bool changed = status != status_;
  if (changed) {
    words += "STATUS=" + status + "\n";
  }
  if (!words.empty() && say(words) && changed) {
    status_ = std::move(status);
  }
  due_ns_ = now_ns + every_ns_;
}

}  // namespace penstock::queue
