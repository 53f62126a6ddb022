#include "worker/queue/result_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace penstock::queue {
namespace {

// Whatever the umask: Nginx's group reads them.
constexpr mode_t kFolderMode = 0750;
constexpr mode_t kFileMode = 0640;

Error failed(const std::string& path, const char* what) {
  return Error{path + ": " + what + " failed: " + std::strerror(errno)};
}

}  // namespace

Result<ResultFiles> ResultFiles::open(const std::string& folder, gid_t group, int (*flush)(int)) {
  if (::mkdir(folder.c_str(), kFolderMode) != 0 && errno != EEXIST) {
    return failed(folder, "mkdir");
  }
  Fd directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) {
    return failed(folder, "open");
  }
  if (::fchmod(directory.get(), kFolderMode) != 0) {
    return failed(folder, "chmod");
  }
  if (group != static_cast<gid_t>(-1) &&
      ::fchown(directory.get(), static_cast<uid_t>(-1), group) != 0) {
    return failed(folder, "chown");
  }
  return ResultFiles(folder, std::move(directory), group, flush);
}

// Not valid, with errno, when it cannot be opened and given to the group.
Fd ResultFiles::make(const std::string& name, int flags) const {
  Fd file(::openat(directory_.get(), name.c_str(),
                   O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, kFileMode));
  const bool anew = file.valid() && (flags & O_TRUNC) != 0;
  const bool given = group_ != static_cast<gid_t>(-1);
  if (anew && ((given && ::fchown(file.get(), static_cast<uid_t>(-1), group_) != 0) ||
               ::fchmod(file.get(), kFileMode) != 0)) {
    return Fd();
  }
  return file;
}

Status ResultFiles::write(const JobId& id, uint64_t offset, std::string_view bytes) {
  const Fd file = make(std::string(id.view()), offset == 0 ? O_TRUNC : 0);
  if (!file.valid()) {
    return failed(path(id), "open");
  }
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno != EINTR) {
      return failed(path(id), "write");
    }
    bytes.remove_prefix(static_cast<size_t>(std::max<ssize_t>(n, 0)));
    offset += static_cast<uint64_t>(std::max<ssize_t>(n, 0));
  }
  return Ok{};
}

Status ResultFiles::seal(const JobId& id, uint64_t size) {
  const std::string name(id.view());
  const Fd file(::openat(directory_.get(), name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  struct stat status {};
  if (!file.valid() || ::fstat(file.get(), &status) != 0) {
    return failed(path(id), "open");
  }
  if (status.st_size < static_cast<off_t>(size)) {
    return Error{path(id) + " is shorter than what was written to it"};
  }
  if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0) {
    return failed(path(id), "truncate");
  }
  if (doubtful_.contains(name) || flush_(file.get()) != 0) {
    doubtful_.insert(name);
    if (Status copied = copy(id, file); !copied) {
      return copied;
    }
  }
  if (::fsync(directory_.get()) != 0) {
    doubtful_.insert(name);  // its name may be dropped, too
    return failed(path(id), "flushing");
  }
  doubtful_.erase(name);
  return Ok{};
}

Status ResultFiles::copy(const JobId& id, const Fd& from) const {
  const std::string name(id.view());
  const std::string fresh = name + ".new";
  const Fd to = make(fresh, O_TRUNC);
  if (!to.valid()) {
    return failed(path(id), "open");
  }
  std::string bytes(256U << 10, '\0');
  for (off_t at = 0;;) {
    errno = ENOSPC;  // of a write that is cut short
    const ssize_t got = ::pread(from.get(), bytes.data(), bytes.size(), at);
    if (got < 0 ||
        (got > 0 && ::pwrite(to.get(), bytes.data(), static_cast<size_t>(got), at) != got)) {
      const Error error = failed(path(id), "copying");
      ::unlinkat(directory_.get(), fresh.c_str(), 0);
      return error;
    }
    if (got == 0) {
      break;
    }
    at += got;
  }
  if (flush_(to.get()) != 0 ||
      ::renameat(directory_.get(), fresh.c_str(), directory_.get(), name.c_str()) != 0) {
    return failed(path(id), "flushing");
  }
  return Ok{};
}

void ResultFiles::remove(const JobId& id) {
  ::unlinkat(directory_.get(), std::string(id.view()).c_str(), 0);
}

uint64_t ResultFiles::sweep(const std::function<bool(const JobId&)>& keep) {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
    const auto id = parse_job_id(entry.path().filename().string());
    if (id && keep(*id)) {
      bytes += entry.file_size(error);
    } else {
      std::filesystem::remove(entry.path(), error);
    }
  }
  return bytes;
}

}  // namespace penstock::queue
