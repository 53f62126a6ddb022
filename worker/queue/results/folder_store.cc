#include "worker/queue/results/folder_store.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

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
  return done;
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
