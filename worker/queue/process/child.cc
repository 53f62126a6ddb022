#include "worker/queue/process/child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "shared/base/exit_status.h"

namespace penstock::queue {
namespace {

// posix_spawn's two objects, destroyed in any case.
struct SpawnSettings {
  SpawnSettings() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

// Which descriptors of ours the child has.
struct Descriptors {
  int socket = -1;
  int lock = -1;
  int input = -1;  // the child's standard input; the socket is its output then
};

void prepare(SpawnSettings& settings, const Descriptors& ours) {
  posix_spawn_file_actions_t* const actions = &settings.actions;
  int last = STDERR_FILENO;
  if (ours.input >= 0) {
    posix_spawn_file_actions_adddup2(actions, ours.input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(actions, ours.socket, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(actions, ours.socket, STDERR_FILENO);
  } else {
    posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(actions, STDERR_FILENO, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(actions, ours.socket, Child::kSocketFd);
    last = Child::kSocketFd;
  }
  if (ours.lock >= 0) {
    posix_spawn_file_actions_adddup2(actions, ours.lock, Child::kLockFd);
    last = Child::kLockFd;
  }
  posix_spawn_file_actions_addclosefrom_np(actions, last + 1);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&settings.attributes, &none);
  posix_spawnattr_setsigdefault(&settings.attributes, &all);
  posix_spawnattr_setpgroup(&settings.attributes, 0);
  posix_spawnattr_setflags(&settings.attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
}

// Ours, with these in the place of those of the same name.
std::vector<const char*> with_ours(const std::vector<std::string>& environment) {
  std::vector<const char*> all;
  for (char** each = environ; *each != nullptr; ++each) {
    const std::string_view ours(*each);
    const std::string_view name = ours.substr(0, ours.find('=') + 1);
    if (std::none_of(environment.begin(), environment.end(),
                     [&](const std::string& theirs) { return theirs.starts_with(name); })) {
      all.push_back(*each);
    }
  }
  for (const std::string& each : environment) {
    all.push_back(each.c_str());
  }
  all.push_back(nullptr);
  return all;
}

Result<Spawned> start(const std::vector<std::string>& command,
                      const std::vector<std::string>& environment, Descriptors descriptors) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return Error{std::string("socketpair failed: ") + std::strerror(errno)};
  }
  Fd ours(pair[0]);
  const Fd theirs(pair[1]);
  ::fcntl(ours.get(), F_SETFL, O_NONBLOCK);
  descriptors.socket = theirs.get();
  SpawnSettings settings;
  prepare(settings, descriptors);
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const std::string& word : command) {
    argv.push_back(const_cast<char*>(word.c_str()));  // posix_spawn does not write to it
  }
  argv.push_back(nullptr);
  pid_t pid = 0;
  auto all = with_ours(environment);
  const int error = ::posix_spawn(&pid, argv[0], &settings.actions, &settings.attributes,
                                  argv.data(), const_cast<char**>(all.data()));  // likewise
  if (error != 0) {
    return Error{command.front() + " cannot be started: " + std::strerror(error)};
  }
  return Spawned{Child(pid), std::move(ours)};
}

}  // namespace

bool Child::reap() {
  siginfo_t ended{};
  if (pid_ <= 0 || ::waitid(P_PID, pid_, &ended, WEXITED | WNOHANG | WNOWAIT) != 0 ||
      ended.si_pid != pid_) {
    return false;
  }
  ::kill(-pid_, SIGKILL);  // before it is reaped: until then the number is no other group's
  ::waitpid(pid_, &status_, 0);
  pid_ = 0;
  return true;
}

void Child::kill() const {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);  // it may have left its group
    ::kill(-pid_, SIGKILL);
  }
}

bool Child::succeeded() const { return WIFEXITED(status_) && WEXITSTATUS(status_) == 0; }

int Child::signal() const { return WIFSIGNALED(status_) ? WTERMSIG(status_) : 0; }

std::string Child::end() const { return exit_words(status_); }

Result<Spawned> spawn(const std::vector<std::string>& command,
                      const std::vector<std::string>& environment, int lock) {
  return start(command, environment, {.lock = lock});
}

Result<Spawned> spawn_reader(const std::vector<std::string>& command,
                             const std::vector<std::string>& environment, int input) {
  return start(command, environment, {.input = input});
}

}  // namespace penstock::queue
