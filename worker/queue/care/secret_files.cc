#include "worker/queue/care/secret_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

// nullptr: it can be read.
const char* why_not(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || ::access(path.c_str(), R_OK) != 0) {
    return std::strerror(errno);
  }
  return S_ISDIR(status.st_mode) ? "it is a folder" : nullptr;
}

}  // namespace

std::vector<NamedFile> secret_files(const Config& config) {
  std::vector<NamedFile> files;
  const auto add = [&files](std::string about, const std::string& path, bool is_secret = true) {
    if (!path.empty()) {
      files.push_back({std::move(about), path, is_secret});
    }
  };
  add("webhooks.secret_file", config.webhooks.secret_file);
  for (const HookConfig& hook : config.notify) {
    add("notify." + hook.name + ".key_file", hook.key_file);
  }
  for (const ProviderConfig& provider : config.challenges) {
    add("challenges." + provider.name + ".secret_file", provider.secret_file);
  }
  add("redis.password_file", config.redis.password_file);
  add("results.key_file", config.results.key_file);
  for (const WorkerConfig& worker : config.workers) {
    if (worker.external) {
      continue;
    }
    for (const auto& [key, value] : worker.options) {
      if (key == "key_file" || key == "ca") {
        add("workers." + worker.name + "." + key, value, key == "key_file");
      }
    }
  }
  return files;
}

void SecretWatch::advance_to(const Config& config, int64_t now_ns) {
  if (now_ns < due_ns_) {
    return;
  }
  due_ns_ = now_ns + kEveryNs;
  std::set<std::string> found;
  for (const NamedFile& file : secret_files(config)) {
    const char* const why = why_not(file.path);
    if (why == nullptr) {
      continue;
    }
    if (found.insert(file.path).second && !unreadable_.contains(file.path)) {
      log(Level::kError, file.about + ": " + file.path + " cannot be read: " + why +
                             "; a reload or start would fail");
    }
  }
  for (const std::string& path : unreadable_) {
    if (!found.contains(path)) {
      log(Level::kInfo, path + " can be read again, or is named no more");
    }
  }
  unreadable_ = std::move(found);
}

}  // namespace penstock::queue
