// Signals, read like any other input: HUP, TERM, INT, USR2 and CHLD are blocked and come through a
// descriptor, so no handler ever runs in between. PIPE is of no use: whoever reads the log, or a
// webhook's connection, may go at any time.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "shared/base/fd.h"
#include "shared/base/result.h"

namespace penstock::queue {

inline Result<Fd> open_signals() {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGHUP, SIGTERM, SIGINT, SIGCHLD, SIGUSR2}) {
    sigaddset(&set, number);
  }
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) {
    return Error{std::string("signalfd failed: ") + std::strerror(errno)};
  }
  return fd;
}

// The next signal, or 0.
inline int next_signal(const Fd& signals) {
  signalfd_siginfo info;
  return ::read(signals.get(), &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo)
                                                                  : 0;
}

// Until it goes, TERM and INT end the process at once, whatever it is doing: what is on disk bears
// that at any moment. For the start, which may have much to read.
class EndOnStop {
 public:
  explicit EndOnStop(const Fd& signals)
      : over_(::eventfd(0, EFD_CLOEXEC)), thread_([this, fd = signals.get()] { watch(fd); }) {}
  ~EndOnStop() {
    constexpr uint64_t kOne = 1;
    [[maybe_unused]] const ssize_t n = ::write(over_.get(), &kOne, sizeof kOne);
    thread_.join();
  }
  EndOnStop(const EndOnStop&) = delete;
  EndOnStop& operator=(const EndOnStop&) = delete;

 private:
  void watch(int signals) const {
    pollfd ready[] = {{over_.get(), POLLIN, 0}, {signals, POLLIN, 0}};
    while (::poll(ready, 2, -1) < 0 || ready[0].revents == 0) {
      sigset_t waiting;
      ::sigpending(&waiting);
      if (sigismember(&waiting, SIGTERM) == 1 || sigismember(&waiting, SIGINT) == 1) {
        ::_exit(0);
      }
      constexpr int kOthersMs = 20;  // another signal waits to be read later
      ::poll(ready, 1, kOthersMs);
    }
  }

  Fd over_;
  std::thread thread_;
};

}  // namespace penstock::queue
