// Child: a process that penstockd started, from its start until it is reaped.
//
// SIGCHLD tells penstockd that some child has ended; each owner of a Child then calls reap(). A
// child that is killed is reaped like any other. Nothing here waits.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/fd.h"
#include "shared/base/result.h"

namespace penstock::queue {

class Child {
 public:
  // After its socket closed, a process gets that long to exit by itself.
  static constexpr int64_t kLingerNs = kNsPerSec;
  // The descriptors that it begins with, beside the standard ones.
  static constexpr int kSocketFd = 3;
  static constexpr int kLockFd = 4;

  Child() = default;  // none
  explicit Child(pid_t pid) : pid_(pid) {}

  // There is one, and it was not reaped yet.
  bool lives() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }  // 0: it does not live

  // Whether it has ended since the last call. What is left of its process group is killed then.
  bool reap();
  // Sends SIGKILL to it and its process group. Nothing happens if it does not live.
  void kill() const;

  // REQUIRES of these: it was reaped.
  bool succeeded() const;   // it exited with status 0
  int signal() const;       // that ended it; 0: none
  std::string end() const;  // "exited with status 1", "was killed by signal 9 (Killed)"

 private:
  pid_t pid_ = 0;
  int status_ = 0;  // as of waitpid(2)
};

struct Spawned {
  Child child;
  Fd socket;  // our end of the pair, non-blocking
};
// Starts the program with the other end as kSocketFd, `lock`, if it is one, as kLockFd, no other
// descriptor of ours but stderr, no signal blocked, and a process group of its own, so that a
// terminal's Ctrl-C reaches it through penstockd only. `environment`: "NAME=value", in place of
// ours of the same name.
Result<Spawned> spawn(const std::vector<std::string>& command,
                      const std::vector<std::string>& environment = {}, int lock = -1);

// The same of a program that knows nothing of us: it reads `input` as its standard input, and what
// it writes there and to stderr comes out of the socket.
Result<Spawned> spawn_reader(const std::vector<std::string>& command,
                             const std::vector<std::string>& environment, int input);

}  // namespace penstock::queue
