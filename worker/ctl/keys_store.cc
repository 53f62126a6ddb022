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

// Nginx's group, by the names that its packages give it; -1: there is none. Debian has www-data
// whether Nginx uses it or not.
gid_t group_of_nginx() {
  for (const char* name : {"nginx", "www-data"}) {
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

bool is_absent(const std::string& path) {
  return ::access(path.c_str(), F_OK) != 0 && errno == ENOENT;
}

Error not_there(const std::string& path) {
  return {path + " is not there: \"penstockctl keys add OWNER\" makes it, -f FILE names another",
          ErrorKind::kIo};
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

Result<KeysStore> KeysStore::read(const std::string& path, Absent absent) {
  KeysStore store(path);
  if (is_absent(path)) {
    return absent == Absent::kHasNoKeys ? std::move(store) : Result<KeysStore>(not_there(path));
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

Result<KeysStore> KeysStore::open(const std::string& path, Absent absent) {
  if (absent == Absent::kIsError && is_absent(path)) {
    return not_there(path);  // and no lock is left beside it
  }
  // Waits for so long for another penstockctl.
  constexpr int kTries = 100;
  constexpr useconds_t kBetweenUs = 100'000;
  std::error_code error;
  const bool is_link = std::filesystem::is_symlink(path, error);
  std::string file = is_link ? std::filesystem::canonical(path, error).string() : path;
  if (error && error != std::errc::no_such_file_or_directory) {
    return Error{path + " cannot be found: " + error.message()};
  }
  if (is_link && file.empty()) {
    return Error{path + " is a link to a file that is not there"};
  }
  const std::string name = file + ".lock";
  Fd lock(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid()) {
    return Error{failed(name + " cannot be made").message + "; -f FILE names another file",
                 ErrorKind::kIo};
  }
  for (int tries = 0; ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0; ++tries) {
    if (errno != EWOULDBLOCK || tries == kTries) {
      return failed(name + " is locked by another penstockctl");
    }
    ::usleep(kBetweenUs);
  }
  Result<KeysStore> store = read(file, absent);
  if (store) {
    store->lock_ = std::move(lock);
  }
  return store;
}

Status KeysStore::save() {
  // So readers need not sort them.
  std::sort(keys_.begin(), keys_.end(),
            [](const keys::Key& a, const keys::Key& b) { return a.digest < b.digest; });
  const std::string text = keys::write_keys(keys_);
  if (text.size() > keys::kMostFileBytes) {
    return Error{path_ + " would be larger than " + std::to_string(keys::kMostFileBytes >> 20) +
                 " MiB, which Nginx does not read"};
  }
  const std::string fresh = path_ + ".new";
  ::unlink(fresh.c_str());  // of one that was killed
  const Fd file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) {
    return failed(fresh + " cannot be made");
  }
  const bool ours = set_access(file.get(), path_);
  if (!ours || !write_all(file.get(), text) || ::fsync(file.get()) != 0) {
    const Error error =
        failed(ours ? fresh + " cannot be written"
                    : path_ + " belongs to another user or group: run this as its owner");
    ::unlink(fresh.c_str());
    return error;
  }
  if (::rename(fresh.c_str(), path_.c_str()) != 0) {
    return failed(path_ + " cannot be replaced");
  }
  const Fd folder(::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid() || ::fsync(folder.get()) != 0) {
    return failed(path_ + " was replaced, and may be the old one after a power failure");
  }
  return Ok{};
}

}  // namespace penstock::ctl
