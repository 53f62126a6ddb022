#include "worker/queue/store/result_files.h"

#include <algorithm>
#include <cerrno>

#include "shared/base/call_failed.h"

namespace penstock::queue {
namespace {

// Whatever the umask: Nginx's group reads them.
constexpr mode_t kFolderMode = 0750;
constexpr mode_t kFileMode = 0640;

Error too_short(const std::string& path) {
  return {path + " is shorter than what was written to it", ErrorKind::kGone};
}

}  // namespace

Result<ResultFiles> ResultFiles::open(const std::string& folder, gid_t group, FileCalls& calls) {
  if (::mkdir(folder.c_str(), kFolderMode) != 0 && errno != EEXIST) {
    return call_failed(folder, "mkdir");
  }
  Fd directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) {
    return call_failed(folder, "open");
  }
  if (::fchmod(directory.get(), kFolderMode) != 0) {
    return call_failed(folder, "chmod");
  }
  if (group != static_cast<gid_t>(-1) &&
      ::fchown(directory.get(), static_cast<uid_t>(-1), group) != 0) {
    return call_failed(folder, "chown");
  }
  return ResultFiles(folder, std::move(directory), group, calls);
}

bool ResultFiles::is_doubtful(const std::string& name) const {
  const MutexLock lock(doubtful_->mutex);
  return doubtful_->names.contains(name);
}

void ResultFiles::set_doubtful(const std::string& name, bool is) {
  const MutexLock lock(doubtful_->mutex);
  if (is) {
    doubtful_->names.insert(name);
  } else {
    doubtful_->names.erase(name);
  }
}

// Empty. Not valid, with errno, when it cannot be opened and given to the group.
Fd ResultFiles::make(const std::string& name) const {
  Fd file(calls_->open(directory_.get(), name.c_str(), O_WRONLY | O_CREAT | O_TRUNC, kFileMode));
  const bool given = group_ != static_cast<gid_t>(-1);
  if (file.valid() && ((given && ::fchown(file.get(), static_cast<uid_t>(-1), group_) != 0) ||
                       ::fchmod(file.get(), kFileMode) != 0)) {
    return Fd();
  }
  return file;
}

Status ResultFiles::write(const JobId& id, uint64_t offset, std::string_view bytes) {
  const std::string name(id.view());
  const Fd file =
      offset == 0 ? make(name) : Fd(calls_->open(directory_.get(), name.c_str(), O_WRONLY, 0));
  struct stat status {};
  if (!file.valid() || ::fstat(file.get(), &status) != 0) {
    return call_failed(path(id), "open");
  }
  if (status.st_size < static_cast<off_t>(offset)) {
    return too_short(path(id));
  }
  return write_all(file.get(), path(id), offset, bytes);
}

Status ResultFiles::write_all(int file, const std::string& path, uint64_t offset,
                              std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t n = calls_->write(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno != EINTR) {
      return call_failed(path, "write");
    }
    bytes.remove_prefix(static_cast<size_t>(std::max<ssize_t>(n, 0)));
    offset += static_cast<uint64_t>(std::max<ssize_t>(n, 0));
  }
  return Ok{};
}

Status ResultFiles::seal(const JobId& id, uint64_t size) {
  const std::string name(id.view());
  const Fd file(calls_->open(directory_.get(), name.c_str(), O_RDWR, 0));
  struct stat status {};
  if (!file.valid() || ::fstat(file.get(), &status) != 0) {
    return call_failed(path(id), "open");
  }
  if (status.st_size < static_cast<off_t>(size)) {
    return too_short(path(id));
  }
  if (calls_->truncate(file.get(), static_cast<off_t>(size)) != 0) {
    return call_failed(path(id), "truncate");
  }
  if (is_doubtful(name) || calls_->flush(file.get()) != 0) {
    set_doubtful(name, true);
    if (Status copied = copy(id, file); !copied) {
      return copied;
    }
  }
  if (calls_->flush_folder(directory_.get()) != 0) {
    set_doubtful(name, true);  // its name may be dropped, too
    return call_failed(path(id), "flushing");
  }
  set_doubtful(name, false);
  return Ok{};
}

Status ResultFiles::copy(const JobId& id, const Fd& from) const {
  const std::string name(id.view());
  const std::string fresh = name + ".new";
  const Fd to = make(fresh);
  if (!to.valid()) {
    return call_failed(path(id), "open");
  }
  std::string bytes(256U << 10, '\0');
  Status copied = Ok{};
  for (uint64_t at = 0; copied;) {
    const ssize_t got =
        calls_->read(from.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (got == 0) {
      break;
    }
    copied = got < 0 ? call_failed(path(id), "copying")
                     : write_all(to.get(), path(id), at,
                                 std::string_view(bytes).substr(0, static_cast<size_t>(got)));
    at += static_cast<uint64_t>(std::max<ssize_t>(got, 0));
  }
  if (copied && (calls_->flush(to.get()) != 0 ||
                 calls_->rename(directory_.get(), fresh.c_str(), name.c_str()) != 0)) {
    copied = call_failed(path(id), "flushing");
  }
  if (!copied) {
    calls_->remove(directory_.get(), fresh.c_str());
  }
  return copied;
}

void ResultFiles::remove(const JobId& id) {
  const std::string name(id.view());
  calls_->remove(directory_.get(), name.c_str());
  set_doubtful(name, false);
}

ResultFiles::Round ResultFiles::round() { return {*this, ::opendir(folder_.c_str())}; }

bool ResultFiles::Round::look(size_t most, const std::function<bool(const JobId&)>& keep) {
  for (size_t i = 0; i < most; ++i) {
    // A folder that cannot be read is at its end.
    const dirent* const entry = folder_ == nullptr ? nullptr : ::readdir(folder_.get());
    if (entry == nullptr) {
      return false;
    }
    const std::string name = entry->d_name;
    const auto id = parse_job_id(name);
    if (!id || !keep(*id)) {
      files_->calls_->remove(files_->directory_.get(), name.c_str());
    }
  }
  return true;
}

}  // namespace penstock::queue
