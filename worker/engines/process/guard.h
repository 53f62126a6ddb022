// Guard: one process between the worker and a program, so that the program ends whole.
//
// Why: killing a process leaves its children alive, and killing its group leaves those that called
// setsid. They would keep the GPU's memory, the pipes and the job's folder, while the slot counts
// as free. The worker may itself be killed with no time to clean up. So:
//
//     worker ──control──▶ guard ──forks──▶ program ──forks──▶ anything, in any session
//
// - The guard is a child subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): whatever the program leaves
//   behind becomes the guard's own child, so it can find and kill all of it, until none is left.
//   Then it exits, and that is how the worker knows.
// - When the worker dies, by KILL too, the control socket ends, and the guard kills all.
// - When the guard is killed, the kernel kills the program (PR_SET_PDEATHSIG, set by the program's
//   own side of the fork, whose parent has one thread only). What the program had forked is beyond
//   reach then.
//
// The guard is a fork of the worker that runs no other code than guard_process.cc: no memory is
// allocated there, as another thread may have held a lock when the worker forked.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "worker/engines/process/credentials.h"

namespace penstock::process {

struct Launch {
  std::string path;  // of the executable
  std::vector<std::string> command;
  std::vector<std::string> environment;  // "NAME=value", and nothing else
  std::string folder;                    // it starts there
  std::optional<Credentials> credentials;
};

class Guard {
 public:
  // Ours, non-blocking.
  struct Pipes {
    Fd input;   // the program's standard input: written
    Fd output;  // its standard output: read
    Fd errors;  // its standard error: read
  };
  struct Notice {
    enum Kind : int { kExited, kNotStarted } kind;
    int value;  // the status, as of waitpid(2); or errno
  };

  static Result<Guard> start(const Launch& launch, Pipes& pipes);
  // Kills all, and waits for at most kPatienceNs until they are gone.
  ~Guard();
  Guard(Guard&&) = default;
  Guard& operator=(Guard&&) = delete;

  // Polls readable when notice() has something to say.
  int control() const { return control_.get(); }
  // Polls readable when the program and all that it forked are gone.
  int gone() const { return pidfd_.get(); }

  std::optional<Notice> notice();
  void terminate();  // TERM, to the program and its group
  void kill();       // KILL, to all of them
  // REQUIRES: gone() polls readable.
  void reap();
  pid_t pid() const { return pid_; }

 private:
  Guard(pid_t pid, Fd control, Fd pidfd);
  void order(char what);

  pid_t pid_;  // 0: reaped
  Fd control_;
  Fd pidfd_;
};

}  // namespace penstock::process
