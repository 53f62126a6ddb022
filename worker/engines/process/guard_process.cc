#include "worker/engines/process/guard_process.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <iterator>

#include "worker/engines/process/guard.h"

namespace penstock::process {
namespace {

// Where the guard keeps its descriptors; all others are closed.
constexpr int kControl = 3;
constexpr int kInput = 4;
constexpr int kOutput = 5;
constexpr int kErrors = 6;
constexpr int kFirstFree = 7;

constexpr int kAgainMs = 10;  // until those that were killed are looked for again
constexpr int kNoProgram = 127;

void notify(Guard::Notice::Kind kind, int value) {
  const Guard::Notice notice{kind, value};
  ::send(kControl, &notice, sizeof notice, MSG_NOSIGNAL);
}

void keep_descriptors(const GuardPlan& plan) {
  const int kept[] = {plan.control, plan.input, plan.output, plan.errors};
  int moved[std::size(kept)];
  for (size_t i = 0; i < std::size(kept); ++i) {
    moved[i] = ::fcntl(kept[i], F_DUPFD, kFirstFree);
  }
  for (size_t i = 0; i < std::size(kept); ++i) {
    ::dup2(moved[i], kControl + static_cast<int>(i));
  }
  ::close_range(kFirstFree, UINT_MAX, 0);
  ::fcntl(kControl, F_SETFD, FD_CLOEXEC);
}

void reset_signals() {
  for (int number = 1; number < NSIG; ++number) {
    ::signal(number, SIG_DFL);  // of those that cannot be set it fails, and nothing is lost
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Where memory is out, the kernel kills the program and not who watches it (worker/pool/confine.h).
void prefer_to_lose() {
  constexpr char kScore[] = "500";
  const int file = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  [[maybe_unused]] const ssize_t written = ::write(file, kScore, sizeof kScore - 1);
  ::close(file);
}

bool become(const GuardPlan& plan) {
  return ::setgroups(plan.group_count, plan.groups) == 0 &&
         ::setresgid(plan.group, plan.group, plan.group) == 0 &&
         ::setresuid(plan.user, plan.user, plan.user) == 0 &&
         ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0;
}

[[noreturn]] void run_program(const GuardPlan& plan, pid_t guard) {
  ::setsid();
  ::dup2(kInput, STDIN_FILENO);
  ::dup2(kOutput, STDOUT_FILENO);
  ::dup2(kErrors, STDERR_FILENO);
  ::close_range(kControl, UINT_MAX, CLOSE_RANGE_CLOEXEC);
  reset_signals();
  prefer_to_lose();
  // The folder before the rights to it are given up: folders above it may be closed to the program.
  if (::chdir(plan.folder) == 0 && (!plan.change_user || become(plan))) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of user would undo it
    if (::getppid() == guard) {
      ::execve(plan.path, plan.command, plan.environment);
    }
  }
  notify(Guard::Notice::kNotStarted, errno);
  ::_exit(kNoProgram);
}

// KILL to each child of the guard: the program, or what lost its parent. Their own children come
// to the guard when they are dead, and get it the next time.
void kill_children() {
  const int file = ::open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
  char text[4096];
  pid_t pid = 0;
  for (ssize_t size; (size = ::read(file, text, sizeof text)) > 0;) {
    for (const char* c = text; c < text + size; ++c) {
      if (*c >= '0' && *c <= '9') {
        pid = 10 * pid + (*c - '0');
      } else if (pid != 0) {
        ::kill(pid, SIGKILL);
        pid = 0;
      }
    }
  }
  ::close(file);
}

// Reaps whoever has died. False: there is nobody left.
bool reap(pid_t program, bool& ending) {
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    if (pid <= 0) {
      return pid == 0 || errno != ECHILD;
    }
    if (pid == program) {
      notify(Guard::Notice::kExited, status);
      ending = true;
    }
  }
}

void obey(pid_t program, bool& ending) {
  char order = kKill;
  const ssize_t size = ::recv(kControl, &order, 1, MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (size == 1 && order == kTerminate) {
    ::kill(program, SIGTERM);  // it may not lead its group yet
    ::kill(-program, SIGTERM);
  } else {
    ending = true;  // told so, or the worker is gone
  }
}

void watch(pid_t program, int children) {
  bool ending = false;
  while (reap(program, ending)) {
    if (ending) {
      ::kill(-program, SIGKILL);
      kill_children();
    }
    pollfd fds[] = {{ending ? -1 : kControl, POLLIN, 0}, {children, POLLIN, 0}};
    ::poll(fds, std::size(fds), ending ? kAgainMs : -1);
    signalfd_siginfo info;
    while (::read(children, &info, sizeof info) > 0) {
    }
    if (fds[0].revents != 0) {
      obey(program, ending);
    }
  }
}

}  // namespace

void run_guard(const GuardPlan& plan) {
  ::setpgid(0, 0);  // what is sent to the worker's group is not for it
  ::prctl(PR_SET_NAME, "penstock-guard");
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  keep_descriptors(plan);
  sigset_t all;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::signal(SIGCHLD, SIG_DFL);
  sigset_t of_children;
  sigemptyset(&of_children);
  sigaddset(&of_children, SIGCHLD);
  const int children = ::signalfd(-1, &of_children, SFD_CLOEXEC | SFD_NONBLOCK);
  const pid_t guard = ::getpid();
  const pid_t program = ::fork();
  if (program == 0) {
    run_program(plan, guard);
  }
  if (program < 0) {
    notify(Guard::Notice::kNotStarted, errno);
    ::_exit(0);
  }
  for (const int end : {kInput, kOutput, kErrors}) {
    ::close(end);
  }
  watch(program, children);
  ::_exit(0);
}

}  // namespace penstock::process
