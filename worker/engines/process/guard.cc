#include "worker/engines/process/guard.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "shared/base/call_failed.h"
#include "worker/engines/process/guard_process.h"

namespace penstock::process {
namespace {

constexpr int kPatienceMs = 2000;

struct Pair {
  Fd ours;
  Fd theirs;
};

// `reads`: whether we do.
Result<Pair> make_pipe(bool reads) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return call_failed("the program's pipe", "pipe2");
  }
  Pair pair{Fd(ends[reads ? 0 : 1]), Fd(ends[reads ? 1 : 0])};
  ::fcntl(pair.ours.get(), F_SETFL, O_NONBLOCK);
  return pair;
}

Result<Pair> make_control() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return call_failed("the program's guard", "socketpair");
  }
  return Pair{Fd(ends[0]), Fd(ends[1])};
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> out;
  out.reserve(words.size() + 1);
  for (const std::string& word : words) {
    out.push_back(const_cast<char*>(word.c_str()));  // execve does not write to it
  }
  out.push_back(nullptr);
  return out;
}

}  // namespace

Guard::Guard(pid_t pid, Fd control, Fd pidfd)
    : pid_(pid), control_(std::move(control)), pidfd_(std::move(pidfd)) {}

Result<Guard> Guard::start(const Launch& launch, Pipes& pipes) {
  auto control = make_control();
  auto input = make_pipe(false);
  auto output = make_pipe(true);
  auto errors = make_pipe(true);
  for (const auto* pair : {&control, &input, &output, &errors}) {
    if (!*pair) {
      return pair->error();
    }
  }
  const auto command = pointers(launch.command);
  const auto environment = pointers(launch.environment);
  GuardPlan plan{.control = control->theirs.get(),
                 .input = input->theirs.get(),
                 .output = output->theirs.get(),
                 .errors = errors->theirs.get(),
                 .path = launch.path.c_str(),
                 .command = command.data(),
                 .environment = environment.data(),
                 .folder = launch.folder.c_str()};
  if (launch.credentials) {
    plan.change_user = true;
    plan.user = launch.credentials->user;
    plan.group = launch.credentials->group;
    plan.groups = launch.credentials->groups.data();
    plan.group_count = launch.credentials->groups.size();
  }
  const pid_t pid = ::fork();
  if (pid == 0) {
    run_guard(plan);
  }
  if (pid < 0) {
    return call_failed("the program's guard", "fork");
  }
  Guard guard(pid, std::move(control->ours),
              Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))));
  if (!guard.pidfd_.valid()) {
    return call_failed("the program's guard", "pidfd_open");
  }
  pipes = {std::move(input->ours), std::move(output->ours), std::move(errors->ours)};
  return guard;
}

Guard::~Guard() {
  if (!control_.valid() || pid_ == 0) {
    return;  // moved from, or reaped
  }
  kill();
  pollfd gone{pidfd_.get(), POLLIN, 0};
  if (pidfd_.valid() && ::poll(&gone, 1, kPatienceMs) > 0) {
    reap();
  }
}

std::optional<Guard::Notice> Guard::notice() {
  Notice notice;
  const ssize_t size = ::recv(control_.get(), &notice, sizeof notice, MSG_DONTWAIT);
  return size == sizeof notice ? std::optional(notice) : std::nullopt;
}

void Guard::order(char what) { ::send(control_.get(), &what, 1, MSG_NOSIGNAL | MSG_DONTWAIT); }

void Guard::terminate() { order(kTerminate); }

void Guard::kill() { order(kKill); }

void Guard::reap() {
  ::waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

}  // namespace penstock::process
