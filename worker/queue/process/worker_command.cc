#include "worker/queue/process/worker_command.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string_view>

extern char** environ;

namespace penstock::queue {
namespace {

constexpr int kWorkerFd = 3;
constexpr int kLockFd = 4;
constexpr std::string_view kVisible = "CUDA_VISIBLE_DEVICES=";
const std::string kOfPrograms = "PENSTOCK_PROGRAM_";  // worker/engines/process/options.h

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

void prepare(SpawnSettings& settings, int socket, int lock) {
  posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&settings.actions, STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&settings.actions, socket, kWorkerFd);
  if (lock >= 0) {
    posix_spawn_file_actions_adddup2(&settings.actions, lock, kLockFd);
  }
  posix_spawn_file_actions_addclosefrom_np(&settings.actions, kWorkerFd + (lock >= 0 ? 2 : 1));
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

}  // namespace

std::vector<std::string> worker_command(const std::string& binary, const WorkerConfig& worker,
                                        const LimitsConfig& limits) {
  std::vector<std::string> command = {binary, "--fd", std::to_string(kWorkerFd)};
  const auto add = [&](const char* name, const std::string& value) {
    command.emplace_back(name);
    command.push_back(value);
  };
  add("--name", worker.name);
  add("--engine", worker.engine);
  if (const std::string& model = worker.model_path.empty() ? worker.model : worker.model_path;
      !model.empty()) {
    add("--model", model);
  }
  add("--model-name", worker.model_name);
  add("--slots", std::to_string(worker.slots));
  add("--memory", std::to_string(worker.memory_bytes));
  if (worker.memory_bytes > 0 && !worker.reserves_memory()) {
    command.emplace_back("--claim-memory");
  }
  add("--max-body", std::to_string(limits.max_body_bytes));
  // It sees that one alone; one that may be the CPU where no GPU answers is still told so.
  add("--device", is_shared_device(worker.device) && worker.devices.front() != "auto"
                      ? "0"
                      : worker.devices.front());
  add("--threads", std::to_string(worker.threads));
  if (worker.engine == "http") {
    add("--option", "url=" + worker.device);
  }
  for (const auto& [key, value] : worker.options) {
    add("--option", std::string(key).append("=").append(value));
  }
  return command;
}

namespace {

Result<std::vector<std::string>> environment_of_device(const std::string& device) {
  if (device == "auto") {
    return std::vector<std::string>{};
  }
  if (device == "cpu") {
    return std::vector<std::string>{std::string(kVisible)};
  }
  std::string seen = device;
  const char* const ours = std::getenv("CUDA_VISIBLE_DEVICES");
  if (ours != nullptr && device.find_first_not_of("0123456789") == std::string::npos) {
    std::istringstream list(ours);
    const int number = std::stoi(device);  // three digits at most
    int at = -1;
    while (at < number && std::getline(list, seen, ',')) {
      ++at;
    }
    if (at < number) {
      return Error{"there is no device " + device + ": CUDA_VISIBLE_DEVICES is \"" + ours +
                   "\", and numbers count what it lists"};
    }
  }
  std::vector<std::string> environment = {std::string(kVisible) + seen};
  if (ours == nullptr) {  // else its numbers are of whatever order it was made for
    environment.emplace_back("CUDA_DEVICE_ORDER=PCI_BUS_ID");
  }
  return environment;
}

}  // namespace

Result<std::vector<std::string>> worker_environment(const WorkerConfig& worker) {
  const bool http = worker.engine == "http";  // whose device is an url
  auto environment = environment_of_device(http ? "auto" : worker.device);
  if (environment) {
    for (const std::string& each : worker.environment) {
      environment->push_back((http ? "PENSTOCK_" : kOfPrograms) + each);
    }
  }
  return environment;
}

std::string binary_beside_this(const std::string& name) {
  char path[PATH_MAX];
  const ssize_t size = ::readlink("/proc/self/exe", path, sizeof path);
  const std::string self(path, size > 0 ? static_cast<size_t>(size) : 0);
  return self.substr(0, self.rfind('/') + 1) + name;
}

Result<Spawned> spawn_worker(const std::vector<std::string>& command,
                             const std::vector<std::string>& environment, int lock) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return Error{std::string("socketpair failed: ") + std::strerror(errno)};
  }
  Fd ours(pair[0]);
  const Fd theirs(pair[1]);
  ::fcntl(ours.get(), F_SETFL, O_NONBLOCK);
  SpawnSettings settings;
  prepare(settings, theirs.get(), lock);
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
  return Spawned{pid, std::move(ours)};
}

}  // namespace penstock::queue
