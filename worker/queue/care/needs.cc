#include "worker/queue/care/needs.h"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>

#include "shared/base/units.h"
#include "worker/queue/api/callers.h"
#include "worker/queue/care/secret_files.h"

namespace penstock::queue {
namespace {

using Level = Finding::Level;

constexpr mode_t kOpenToAll = 07;
constexpr char kServiceUser[] = "penstock";  // of the packages' unit
constexpr mode_t kBeyondSecret = 0777 & ~0640U;

std::string user() {
  const passwd* const found = ::getpwuid(::geteuid());
  return found != nullptr ? found->pw_name : std::to_string(::geteuid());
}

// Whether who looks is the user as whom penstockd runs, as far as can be told. `owner`: of what it
// writes to.
bool is_penstockds(uid_t owner) { return ::geteuid() == owner || user() == kServiceUser; }

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// Looks at one subject: what is found of it, or that it is in order.
class Look {
 public:
  Look(std::vector<Finding>& findings, std::string about)
      : findings_(findings), about_(std::move(about)), before_(findings.size()) {}

  void warn(std::string text, std::string advice) { add(Level::kWarn, text, advice); }
  void bad(std::string text, std::string advice) { add(Level::kBad, text, advice); }
  void stops(std::string text, std::string advice) {
    bad(std::move(text), std::move(advice));
    findings_.back().stops = true;
  }
  void done(std::string text) {
    if (findings_.size() == before_) {
      findings_.push_back({Level::kOk, about_, std::move(text), {}});
    }
  }

  // nothing: it is not there, or cannot be looked at, which is told.
  std::optional<struct stat> look(const std::string& path, const std::string& advice) {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0) {
      return status;
    }
    errno == ENOENT
        ? bad(path + " is not there", advice)
        : bad(path + " cannot be looked at: " + std::strerror(errno), "look as a user who may");
    return std::nullopt;
  }

  void readable_file(const std::string& path) {
    const auto status = look(path, "put it there, or change the path");
    if (status && S_ISDIR(status->st_mode)) {
      bad(path + " is a folder", "name a file");
    } else if (status && ::access(path.c_str(), R_OK) != 0) {
      bad(path + " may not be read by " + user(), "chgrp it to a group of penstockd's, chmod 0640");
    }
  }

  void secret(const std::string& path) {
    readable_file(path);
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0 && (status.st_mode & kBeyondSecret) != 0) {
      warn(fmt::format("{} has mode {:04o}: it is open to more than its owner and readers of its "
                       "group",
                       path, status.st_mode & 07777),
           "chmod 0640 " + path);
    }
  }

  void program(const std::string& path) {
    const auto status = look(path, "install it, or change the path");
    if (status && (!S_ISREG(status->st_mode) || ::access(path.c_str(), X_OK) != 0)) {
      bad(path + " is nothing that " + user() + " may execute", "chmod +x " + path);
    }
  }

  void socket(const std::string& path, const std::string& of) {
    const auto status = look(path, "start " + of + ", or change the path");
    if (status && !S_ISSOCK(status->st_mode)) {
      bad(path + " is no socket", "change the path");
    }
  }

  // Whether it is one, and may be written to. If it is `vital`, no start goes without.
  bool folder(const std::string& path, const std::string& advice, bool vital = false) {
    const auto status = look(path, advice);
    if (status && !S_ISDIR(status->st_mode)) {
      bad(path + " is no folder", "move it away, or change the path");
      findings_.back().stops = vital;
      return false;
    }
    if (status && ::access(path.c_str(), W_OK | X_OK) != 0) {
      may_not_write(path, status->st_uid, vital);
    }
    return status.has_value();
  }

 private:
  void may_not_write(const std::string& path, uid_t owner, bool vital) {
    const std::string text = path + " may not be written to by " + user();
    if (vital && is_penstockds(owner)) {
      return stops(text,
                   owner == ::geteuid() ? "chmod u+rwx " + path : "chown it to penstockd's user");
    }
    warn(text,
         "chown it to penstockd's user; if that is another one, look as that: sudo -u USER "
         "penstockd -t");
  }

  void add(Level level, std::string& text, std::string& advice) {
    findings_.push_back({level, about_, std::move(text), std::move(advice)});
  }

  std::vector<Finding>& findings_;
  std::string about_;
  size_t before_;
};

void look_at_files(const Config& config, std::vector<Finding>& findings) {
  Look look(findings, "configuration");
  for (const std::string& path : config.files) {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0 && (status.st_mode & S_IWOTH) != 0) {
      look.bad(path + " may be written by everybody, who then says what penstockd runs",
               "chmod o-w " + path);
    }
  }
  look.done(config.files.empty() ? "in order" : config.files.front());
}

void look_at_socket(const Config& config, std::vector<Finding>& findings) {
  Look look(findings, "socket");
  const std::string folder = folder_of(config.socket);
  struct stat status {};
  if (::lstat(config.socket.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
    look.stops(config.socket + " is there and is no socket", "move it away, or change the path");
  }
  const ::group* const found =
      config.socket_group.empty() ? nullptr : ::getgrnam(config.socket_group.c_str());
  if (!config.socket_group.empty() && found == nullptr) {
    look.stops(
        "there is no group " + config.socket_group,
        "groupadd " + config.socket_group + ", or set socket_group to that of Nginx's workers");
  }
  if (!look.folder(folder, "systemd-tmpfiles --create makes it; else: mkdir -m 0755 " + folder,
                   true)) {
    return;
  }
  if (::stat(folder.c_str(), &status) != 0) {
    return;
  }
  if ((status.st_mode & S_IWOTH) != 0 && (status.st_mode & S_ISVTX) == 0) {
    look.bad(folder + " may be written by everybody, who can put another socket there",
             "chmod o-w " + folder);
  }
  if (found != nullptr && (status.st_mode & S_IXOTH) == 0 &&
      (status.st_gid != found->gr_gid || (status.st_mode & S_IXGRP) == 0)) {
    look.warn("members of " + config.socket_group + " cannot go through " + folder,
              "chgrp " + config.socket_group + " " + folder + " and chmod g+x");
  }
  look.done(config.socket);
}

void look_at_room(const std::string& folder, const Config& config, Look& look) {
  struct statvfs disk {};
  if (::statvfs(folder.c_str(), &disk) != 0) {
    return;
  }
  const auto free = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  struct stat reserve {};  // taken while a penstockd runs
  const bool has_reserve = ::stat((folder + "/reserve").c_str(), &reserve) == 0 &&
                           reserve.st_size >= config.limits.reserve_bytes;
  if (free < config.limits.reserve_bytes && has_reserve) {
    look.warn(fmt::format("{} has {} MiB free beside limits.reserve", folder, free >> 20),
              "make room: once the disk is full, nothing is promised");
  } else if (free < config.limits.reserve_bytes) {
    look.bad(fmt::format("{} has {} MiB free, less than limits.reserve", folder, free >> 20),
             "make room: until then nothing is promised");
  } else if (free < config.limits.max_state_bytes / 10) {
    look.warn(fmt::format("{} has {} MiB free, less than a tenth of limits.max_state", folder,
                          free >> 20),
              "make room, or lower limits.max_state");
  }
}

void look_at_state(const Config& config, std::vector<Finding>& findings) {
  Look look(findings, "state");
  const std::string& state = config.state;
  struct stat status {};
  if (::stat(state.c_str(), &status) != 0 && errno == ENOENT) {
    const std::string above = folder_of(state);
    if (look.folder(above, "make it, or change `state`")) {
      look_at_room(above, config, look);
    }
    return look.done(state + " is made at the first start");
  }
  if (!look.folder(state, "make it, or change `state`", true)) {
    return;
  }
  if (::stat(state.c_str(), &status) == 0 && (status.st_mode & kOpenToAll) != 0) {
    look.warn(fmt::format("{} has mode {:04o}: everybody may look into it", state,
                          status.st_mode & 07777),
              "chmod 0750 " + state);
  }
  for (const char* const name : {"lock", "secret", "jobs.db", "jobs.db-wal"}) {
    const std::string path = state + "/" + name;
    struct stat file {};
    if (::lstat(path.c_str(), &file) == 0 && (file.st_mode & 0077) != 0) {
      look.bad(fmt::format("{} has mode {:04o}: others may open it", path, file.st_mode & 07777),
               "chmod 0600 " + path);
    }
    if (file.st_mode != 0 && ::access(path.c_str(), R_OK | W_OK) != 0 &&
        is_penstockds(status.st_uid)) {
      look.stops(path + " may not be written to by " + user(),
                 "chown --reference=" + state + " " + path + ", and chmod 0600");
    } else if (file.st_mode != 0 && file.st_uid != status.st_uid) {
      look.warn(path + " belongs to another user than " + state,
                "chown --reference=" + state + " " + path);
    }
  }
  look_at_room(state, config, look);
  look.done(state);
}

void look_at_model(const std::string& folder, Look& look) {
  const auto status = look.look(folder, "put the model's folder there, or change `model`");
  if (!status) {
    return;
  }
  if (!S_ISDIR(status->st_mode)) {
    return look.bad(folder + " is no folder", "name the folder that has config.json in it");
  }
  for (const char* const name : {"config.json", "tokenizer.json"}) {
    look.readable_file(folder + "/" + name);
  }
  const auto may_read = [&](const char* name) {
    return ::access((folder + "/" + name).c_str(), R_OK) == 0;
  };
  if (!may_read("model.safetensors") && !may_read("model.safetensors.index.json")) {
    look.bad(folder + " has no weights that may be read",
             "put model.safetensors there, or the files of model.safetensors.index.json");
  }
}

void look_at_worker(const WorkerConfig& worker, std::vector<Finding>& findings) {
  Look look(findings, "workers." + worker.name);
  std::string what = worker.engine;
  if (worker.engine == "llama") {
    look_at_model(worker.model_path, look);
    what = worker.model_path;
  }
  constexpr std::string_view kUnix = "unix:";
  for (const std::string& device : worker.devices) {
    if (device.starts_with(kUnix)) {
      look.socket(device.substr(kUnix.size()), "what listens there");
    }
  }
  look.done(what);
}

void look_at_secrets(const Config& config, std::vector<Finding>& findings) {
  for (const NamedFile& file : secret_files(config)) {
    Look look(findings, file.about);
    file.is_secret ? look.secret(file.path) : look.readable_file(file.path);
    look.done(file.path);
  }
}

void look_at_redis(const RedisConfig& redis, std::vector<Finding>& findings) {
  for (const RedisConfig::At& at : redis.at) {
    if (!at.path.empty()) {
      Look look(findings, "redis.url");
      look.socket(at.path, "Redis");
      look.done(at.path);
    }
  }
}

void look_at_descriptors(const Config& config, std::vector<Finding>& findings) {
  Look look(findings, "limits.max_connections");
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const uint64_t needed = Callers::descriptors_of(config.limits.max_connections);
  if (limit.rlim_max < needed) {
    look.warn(
        fmt::format("{} connections need {} descriptors, and {} may be had here",
                    config.limits.max_connections, needed, limit.rlim_max),
        fmt::format("LimitNOFILE={} in its unit (ulimit -n), or a lower max_connections", needed));
  }
  look.done(fmt::format("{} descriptors for {} connections", limit.rlim_max,
                        config.limits.max_connections));
}

}  // namespace

std::vector<Finding> look_at_needs(const Config& config, const std::string& programs) {
  std::vector<Finding> findings;
  look_at_files(config, findings);
  look_at_socket(config, findings);
  if (!config.state.empty()) {
    look_at_state(config, findings);
  }
  if (!config.results.folder.empty()) {
    Look look(findings, "results.folder");
    look.folder(config.results.folder, "mount it, or change the path");
    look.done(config.results.folder);
  }
  look_at_secrets(config, findings);
  look_at_redis(config.redis, findings);
  Look binary(findings, "worker_binary");
  const std::string worker =
      config.worker_binary.empty() ? programs + "penstock-worker" : config.worker_binary;
  binary.program(worker);
  binary.done(worker);
  for (const WorkerConfig& each : config.workers) {
    look_at_worker(each, findings);
  }
  look_at_descriptors(config, findings);
  return findings;
}

}  // namespace penstock::queue
