#include "worker/queue/results/folder_store.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "shared/base/clock.h"

namespace penstock::queue {
namespace {

// Another host may put the same at the same time.
std::string own_name(const std::string& name) {
  uint64_t random = 0;
  if (::getrandom(&random, sizeof random, 0) != sizeof random) {
    std::abort();  // a kernel that has booted has some
  }
  return "." + name + "." + std::to_string(random);
}
bool is_own_name(const std::string& name) {
  const size_t dot = name.rfind('.');
  return name.starts_with('.') && dot > 0 && dot + 1 < name.size() &&
         name.find_first_not_of("0123456789", dot + 1) == std::string::npos;
}

constexpr int64_t kDayNs = 86'400 * kNsPerSec;

}  // namespace

Result<std::unique_ptr<ResultStore>> FolderStore::open(const std::string& folder) {
  Fd directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) {
    return file_error("the folder for results, " + folder, errno);
  }
  return std::unique_ptr<ResultStore>(new FolderStore(folder, std::move(directory)));
}

Status FolderStore::write(const std::string& name, const StoredResult& result, int file) const {
  const Fd to(::openat(directory_.get(), name.c_str(),
                       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640));
  if (!to.valid()) {
    return file_error(what(name), errno);
  }
  Status written = Ok{};
  const Status read =
      read_file(file, 0, result.bytes, what(result.name), [&](std::string_view bytes) {
        while (written && !bytes.empty()) {
          const ssize_t size = ::write(to.get(), bytes.data(), bytes.size());
          if (size < 0 && errno != EINTR) {
            written = file_error(what(name), errno);
          }
          bytes.remove_prefix(size > 0 ? static_cast<size_t>(size) : 0);
        }
        return static_cast<bool>(written);
      });
  if (!read || !written) {
    return read ? written : read;
  }
  return ::fsync(to.get()) == 0 ? Status(Ok{}) : file_error(what(name), errno);
}

Status FolderStore::put_file(const StoredResult& result, int file) {
  const std::string own = own_name(result.name);
  Status done = write(own, result, file);
  if (done &&
      (::renameat(directory_.get(), own.c_str(), directory_.get(), result.name.c_str()) != 0 ||
       ::fsync(directory_.get()) != 0)) {
    done = file_error(what(result.name), errno);
  }
  if (!done) {
    ::unlinkat(directory_.get(), own.c_str(), 0);
  }
  remove_unfinished();
  return done;
}

void FolderStore::remove_unfinished() {
  const int64_t now_ns = monotonic_ns();
  if (now_ns < swept_ns_ + kDayNs && swept_ns_ != INT64_MIN) {
    return;
  }
  swept_ns_ = now_ns;
  const time_t since = ::time(nullptr) - kDayNs / kNsPerSec;
  std::error_code error;
  for (std::filesystem::directory_iterator each(folder_, error), end; !error && each != end;
       each.increment(error)) {
    const std::string name = each->path().filename();
    struct stat is {};
    if (is_own_name(name) &&
        ::fstatat(directory_.get(), name.c_str(), &is, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(is.st_mode) && is.st_mtime < since) {
      ::unlinkat(directory_.get(), name.c_str(), 0);
    }
  }
}

Status FolderStore::read_part(const std::string& name, uint64_t first, uint64_t bytes,
                              const Take& take) {
  const Fd from(::openat(directory_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  return from.valid() ? read_file(from.get(), first, bytes, what(name), take)
                      : file_error(what(name), errno);
}

Status FolderStore::remove_file(const std::string& name) {
  return ::unlinkat(directory_.get(), name.c_str(), 0) == 0 || errno == ENOENT
             ? Status(Ok{})
             : file_error(what(name), errno);
}

}  // namespace penstock::queue
