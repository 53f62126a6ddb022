// Signals, read like any other input: HUP, TERM, INT and CHLD are blocked and come through a
// descriptor, so no handler ever runs in between. PIPE is of no use: whoever reads the log, or a
// webhook's connection, may go at any time.
#pragma once

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "shared/base/fd.h"
#include "shared/base/result.h"

namespace penstock::queue {

inline Result<Fd> open_signals() {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGHUP, SIGTERM, SIGINT, SIGCHLD}) {
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

}  // namespace penstock::queue
