#include "worker/engines/process/scratch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "shared/base/call_failed.h"

namespace penstock::process {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "penstock-";

Fd open_folder(const std::string& path) {
  return Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

bool is_ours(const Fd& folder) {
  struct stat is;
  return folder.valid() && ::fstat(folder.get(), &is) == 0 && is.st_uid == ::geteuid();
}

void remove_left_behind(const std::string& base, const std::string& prefix) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(base, ignored)) {
    if (entry.path().filename().string().starts_with(prefix)) {
      const Fd folder = open_folder(entry.path());
      if (is_ours(folder) && ::flock(folder.get(), LOCK_EX | LOCK_NB) == 0) {
        fs::remove_all(entry.path(), ignored);
      }
    }
  }
}

void empty(const std::string& path) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path, ignored)) {
    fs::remove_all(entry.path(), ignored);
  }
}

// Links are counted, and not followed; what goes away meanwhile is passed over.
int64_t used_below(const std::string& path) {
  constexpr int64_t kBlockBytes = 512;  // stat(2)
  int64_t bytes = 0;
  std::error_code error;
  const auto options = fs::directory_options::skip_permission_denied;
  for (fs::recursive_directory_iterator at(path, options, error), end; !error && at != end;
       at.increment(error)) {
    struct stat is;
    if (::lstat(at->path().c_str(), &is) == 0) {
      bytes += is.st_blocks * kBlockBytes;
    }
  }
  return bytes;
}

Status make_folder(const std::string& path, mode_t mode, const std::optional<Credentials>& owner) {
  if (::mkdir(path.c_str(), mode) != 0) {
    return call_failed(path, "mkdir");
  }
  if (owner && ::chown(path.c_str(), owner->user, owner->group) != 0) {
    return call_failed(path, "chown");
  }
  return Ok{};
}

}  // namespace

Result<Scratch> Scratch::open(const std::string& base, const std::string& worker) {
  const std::string prefix = kPrefix + worker + ".";
  remove_left_behind(base, prefix);
  std::string path = base + "/" + prefix + "XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    return call_failed(path, "mkdtemp");
  }
  Fd lock = open_folder(path);
  if (!lock.valid() || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return call_failed(path, "flock");
  }
  ::fchmod(lock.get(), 0711);  // a program of another user comes through to its own
  return Scratch(std::move(path), std::move(lock));
}

Scratch::~Scratch() {
  if (lock_.valid()) {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
}

Result<SlotFolder> SlotFolder::create(const Scratch& scratch, size_t slot,
                                      const std::optional<Credentials>& owner) {
  const std::string home = scratch.path() + "/" + std::to_string(slot);
  SlotFolder folder;
  folder.job_ = home + "/job";
  folder.tmp_ = home + "/tmp";
  folder.owner_ = owner;
  if (const Status made = make_folder(home, 0711, std::nullopt); !made) {
    return made.error();
  }
  for (const std::string& path : {folder.job_, folder.tmp_}) {
    if (const Status made = make_folder(path, 0700, owner); !made) {
      return made.error();
    }
  }
  folder.job_fd_ = open_folder(folder.job_);
  if (!folder.job_fd_.valid()) {
    return call_failed(folder.job_, "open");
  }
  return folder;
}

Result<std::string> SlotFolder::put(const std::string& name, std::string_view bytes) {
  const std::string path = job_ + "/" + name;
  const Fd file(::openat(job_fd_.get(), name.c_str(),
                         O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) {
    return call_failed(path, "open");
  }
  if (owner_ && ::fchown(file.get(), owner_->user, owner_->group) != 0) {
    return call_failed(path, "fchown");
  }
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) {
      return call_failed(path, "write");
    }
    bytes.remove_prefix(written < 0 ? 0 : static_cast<size_t>(written));
  }
  return path;
}

int64_t SlotFolder::used_bytes() const { return used_below(job_) + used_below(tmp_); }

void SlotFolder::empty_job() { empty(job_); }

void SlotFolder::empty_tmp() { empty(tmp_); }

}  // namespace penstock::process
