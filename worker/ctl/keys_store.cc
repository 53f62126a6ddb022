#include "worker/ctl/keys_store.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "shared/base/secret_file.h"

namespace penstock::ctl {
namespace {

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? "." : folder;
}

Error failed(const std::string& what) {
  return {what + ": " + std::strerror(errno), ErrorKind::kIo};
}

// Nginx's group, by the names that its packages give it; -1: there is none.
gid_t group_of_nginx() {
  for (const char* name : {"www-data", "nginx"}) {
    if (const group* const found = ::getgrnam(name); found != nullptr) {
      return found->gr_gid;
    }
  }
  return static_cast<gid_t>(-1);
}

// As those of the file that is replaced.
bool set_access(int fd, const std::string& path) {
  struct stat old;
  if (::stat(path.c_str(), &old) == 0) {
    return ::fchown(fd, old.st_uid, old.st_gid) == 0 && ::fchmod(fd, old.st_mode & 0777) == 0;
  }
  // Who may not give it away keeps it.
  [[maybe_unused]] const int given = ::fchown(fd, static_cast<uid_t>(-1), group_of_nginx());
  return ::fchmod(fd, 0640) == 0;
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno != EINTR) {
      return false;
    }
    text.remove_prefix(static_cast<size_t>(std::max(n, ssize_t{0})));
  }
  return true;
}

}  // namespace

Result<KeysStore> KeysStore::read(const std::string& path) {
  KeysStore store(path);
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) {
    return store;
  }
  const auto file = read_secret_file(path, keys::kMostFileBytes);
  if (!file) {
    return file.error();
  }
  auto keys = keys::read_keys(file->text);
  if (!keys) {
    return Error{path + ": " + keys.error().message};
  }
  store.keys_ = *std::move(keys);
  return store;
}

Result<KeysStore> KeysStore::open(const std::string& path) {
  Fd folder(::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid() || ::flock(folder.get(), LOCK_EX) != 0) {
    return failed(folder_of(path) + " cannot be locked");
  }
  Result<KeysStore> store = read(path);
  if (store) {
    store->folder_ = std::move(folder);
  }
  return store;
}

Status KeysStore::save() {
  // So readers need not sort them.
  std::sort(keys_.begin(), keys_.end(),
            [](const keys::Key& a, const keys::Key& b) { return a.digest < b.digest; });
  const std::string fresh = path_ + ".new";
  ::unlink(fresh.c_str());  // of one that was killed
  const Fd file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) {
    return failed(fresh + " cannot be made");
  }
  if (!write_all(file.get(), keys::write_keys(keys_)) || !set_access(file.get(), path_) ||
      ::fsync(file.get()) != 0) {
    const Error error = failed(fresh + " cannot be written");
    ::unlink(fresh.c_str());
    return error;
  }
  if (::rename(fresh.c_str(), path_.c_str()) != 0 || ::fsync(folder_.get()) != 0) {
    return failed(path_ + " cannot be replaced");
  }
  return Ok{};
}

}  // namespace penstock::ctl
