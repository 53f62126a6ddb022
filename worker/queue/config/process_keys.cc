#include "worker/queue/config/process_keys.h"

#include <linux/capability.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "worker/queue/config/engine_options.h"
#include "worker/queue/config/environment.h"
#include "worker/queue/config/names.h"

namespace penstock::queue {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kMaxSlots = 256;
constexpr size_t kMaxWords = 256;
constexpr size_t kMaxVariables = 256;
constexpr int64_t kMaxBytes = int64_t{1} << 50;
constexpr int64_t kMaxLineBytes = int64_t{64} << 20;
constexpr int64_t kMaxPreviewBytes = int64_t{1} << 20;

std::string beside(const std::string& file, const std::string& path) {
  std::error_code error;
  const fs::path whole = fs::absolute(relative_to(file, path), error);
  return error ? path : whole.lexically_normal().string();
}

bool is_file(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_executable(const std::string& path) {
  return is_file(path) && ::access(path.c_str(), X_OK) == 0;
}

bool is_in_path(const std::string& program, std::string_view path) {
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find(':', at), path.size());
    if (is_executable(std::string(path.substr(at, end - at)) + "/" + program)) {
      return true;
    }
    at = end + 1;
  }
  return false;
}

// The program's own PATH, as the worker will make it.
std::string path_of(const WorkerConfig& worker) {
  constexpr std::string_view kPath = "PATH=";
  for (const std::string& each : worker.environment) {
    if (each.starts_with(kPath)) {
      return each.substr(kPath.size());
    }
  }
  const char* const ours = std::getenv("PATH");
  return ours == nullptr ? "/usr/local/bin:/usr/bin:/bin" : ours;
}

// The first word is found as a shell does; any other is a file where there is one.
void read_command(Section& section, const std::string& file, WorkerConfig& worker) {
  const YAML::Node words = section.take("command");
  if (!words.IsDefined()) {
    return section.complain("command",
                            "is missing; engine process needs a list of words, like "
                            "[python3, render.py]");
  }
  if (!words.IsSequence() || words.size() == 0 || words.size() > kMaxWords) {
    return section.complain("command",
                            "must be a list of 1 to 256 words, like "
                            "[python3, render.py]");
  }
  for (size_t i = 0; i < words.size(); ++i) {
    if (!words[i].IsScalar() || words[i].Scalar().find('\0') != std::string::npos ||
        (i == 0 && words[i].Scalar().empty())) {
      return section.complain("command", "word " + std::to_string(i + 1) + " must be a text");
    }
    std::string word = words[i].Scalar();
    const bool is_path = i == 0 ? word.find('/') != word.npos
                                : !word.empty() && word.front() != '-' && word.front() != '/' &&
                                      is_file(beside(file, word));
    if (is_path) {
      word = beside(file, word);
    }
    if (i == 0 && !(is_path ? is_executable(word) : is_in_path(word, path_of(worker)))) {
      return section.complain("command", "there is no program " + word + " that may be executed" +
                                             (is_path ? "" : ", in no folder of PATH"));
    }
    worker.options.emplace_back("command." + std::to_string(i), word);
  }
}

bool is_variable(std::string_view name) {
  return !name.empty() && name.size() <= 256 &&
         name.find_first_of(std::string_view("=\0 ", 3)) == name.npos;
}

// env: { NAME: value, INHERITED: }
void read_env(Section& section, WorkerConfig& worker) {
  const YAML::Node env = section.take("env");
  if (!env.IsDefined()) {
    return;
  }
  if (!env.IsMap() || env.size() > kMaxVariables) {
    return section.complain("env",
                            "must be a map of at most 256 variables, NAME: value; without a "
                            "value it is penstockd's own");
  }
  for (const auto& entry : env) {
    const std::string name = entry.first.IsScalar() ? entry.first.Scalar() : "";
    if (!is_variable(name) || (!entry.second.IsScalar() && !entry.second.IsNull()) ||
        (entry.second.IsScalar() && entry.second.Scalar().find('\0') != std::string::npos)) {
      return section.complain("env", "must be a map of NAME: value");
    }
    const char* const ours = std::getenv(name.c_str());
    if (entry.second.IsScalar()) {
      const auto value = with_environment(entry.second.Scalar());
      if (!value) {
        return section.complain("env", value.error().message);
      }
      worker.environment.push_back(name + "=" + *value);
    } else if (ours != nullptr) {
      worker.environment.push_back(name + "=" + ours);
    }
  }
  std::string all;
  for (const std::string& each : worker.environment) {
    all += each + '\0';
  }
  section.note_hidden("env", std::to_string(env.size()) + " variables, not shown", all);
}

bool may_become_another() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("CapEff:")) {
      const uint64_t effective = std::strtoull(line.c_str() + 7, nullptr, 16);
      constexpr uint64_t kNeeded =
          uint64_t{1} << CAP_SETUID | uint64_t{1} << CAP_SETGID | uint64_t{1} << CAP_KILL;
      return (effective & kNeeded) == kNeeded;
    }
  }
  return ::geteuid() == 0;
}

void read_user(Section& section, WorkerConfig& worker) {
  std::string user;
  section.text("user", user);
  if (user.empty()) {
    return;
  }
  char text[16384];
  passwd entry;
  passwd* found = nullptr;
  ::getpwnam_r(user.c_str(), &entry, text, sizeof text, &found);
  if (found == nullptr) {
    section.complain("user", "there is no user '" + user.substr(0, 64) + "' on this host");
  } else if (entry.pw_uid != ::geteuid() && !may_become_another()) {
    section.complain("user",
                     "a program of another user needs root, or CAP_SETUID, CAP_SETGID and "
                     "CAP_KILL");
  }
  worker.options.emplace_back("user", user);
}

void read_scratch(Section& section, const std::string& file, WorkerConfig& worker) {
  if (!section.given("scratch")) {
    return;
  }
  std::string folder;
  section.text("scratch", folder);
  folder = beside(file, folder);
  std::error_code error;
  if (!fs::is_directory(folder, error) || ::access(folder.c_str(), W_OK | X_OK) != 0) {
    section.complain("scratch", folder + " is no folder that may be written to");
  }
  worker.options.emplace_back("folder", folder);
}

void read_bounds(Section& section, WorkerConfig& worker) {
  for (const char* const key : {"timeout", "ready_timeout", "grace"}) {
    add_duration(section, key, kNsPerMs, worker);
  }
  add_size(section, "memory_limit", int64_t{1} << 20, kMaxBytes, worker);
  add_size(section, "max_scratch", int64_t{1} << 20, kMaxBytes, worker);
  add_size(section, "max_result", 1, kMaxBytes, worker);
  add_size(section, "max_line", 1024, kMaxLineBytes, worker);
  add_size(section, "max_preview", 1, kMaxPreviewBytes, worker);
}

}  // namespace

void read_process_keys(Section& section, const std::string& file, WorkerConfig& worker) {
  if (worker.engine == "process") {
    if (worker.adaptive_slots || worker.slots > kMaxSlots) {
      section.complain("slots",
                       "must be a number of at most 256 for engine process, as each is a "
                       "program of its own");
    }
    read_env(section, worker);
    read_command(section, file, worker);
    read_user(section, worker);
    read_scratch(section, file, worker);
    return read_bounds(section, worker);
  }
  refuse_keys_of("process",
                 {"command", "env", "user", "scratch", "timeout", "ready_timeout", "grace",
                  "memory_limit", "max_scratch", "max_result", "max_line", "max_preview"},
                 section, worker);
}

}  // namespace penstock::queue
