#include "worker/queue/care/secret_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "shared/base/mutex.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

std::string why_unreadable(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || ::access(path.c_str(), R_OK) != 0) {
    return std::strerror(errno);
  }
  return S_ISDIR(status.st_mode) ? "it is a folder" : "";
}

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

struct SecretWatch::Looking {
  explicit Looking(std::vector<NamedFile> all) : files(std::move(all)) {}

  const std::vector<NamedFile> files;
  Mutex mutex;
  std::vector<std::string> whys GUARDED_BY(mutex);  // of those that were looked at so far
};

void SecretWatch::begin(const Config& config, int64_t now_ns) {
  again_ = false;
  begun_ns_ = now_ns;
  due_ns_ = now_ns + kAnswerNs;
  looking_ = std::make_shared<Looking>(secret_files(config));
  try {
    std::thread([looking = looking_, look = look_] {
      for (const NamedFile& file : looking->files) {
        std::string why = look(file.path);
        const MutexLock lock(looking->mutex);
        looking->whys.push_back(std::move(why));
      }
    }).detach();
  } catch (const std::system_error&) {  // no thread can be had
    looking_.reset();
    due_ns_ = now_ns + kEveryNs;
  }
}

void SecretWatch::tell(const NamedFile& file, const std::string& why) {
  log(Level::kError,
      file.about + ": " + file.path + " cannot be read: " + why + "; a reload or start would fail");
}

void SecretWatch::advance_to(const Config& config, int64_t now_ns) {
  if (now_ns < due_ns_) {
    return;
  }
  if (looking_ == nullptr) {
    return begin(config, now_ns);
  }
  const std::vector<NamedFile>& files = looking_->files;
  std::vector<std::string> whys;
  {
    const MutexLock lock(looking_->mutex);
    whys = looking_->whys;
  }
  if (whys.size() < files.size()) {
    const NamedFile& hangs = files[whys.size()];
    due_ns_ = now_ns + (now_ns - begun_ns_ < kNsPerSec ? kAnswerNs : kNsPerSec);
    if (now_ns - begun_ns_ >= kHangsNs && unreadable_.insert(hangs.path).second) {
      tell(hangs, "it does not answer");
    }
    return;
  }
  std::set<std::string> found;
  for (size_t i = 0; i < files.size(); ++i) {
    if (!whys[i].empty() && found.insert(files[i].path).second &&
        !unreadable_.contains(files[i].path)) {
      tell(files[i], whys[i]);
    }
  }
  for (const std::string& path : unreadable_) {
    if (!found.contains(path)) {
      log(Level::kInfo, path + " can be read again, or is named no more");
    }
  }
  unreadable_ = std::move(found);
  looking_.reset();
  due_ns_ = again_ ? now_ns : std::max(now_ns, begun_ns_ + kEveryNs);
}

}  // namespace penstock::queue
