#include "worker/queue/state_folder.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "shared/base/bytes.h"

namespace penstock::queue {
namespace {

constexpr mode_t kFolderMode = 0750;  // whatever the umask
// magic, secret, and the secret's hash under itself: a file cut short or overwritten is seen.
constexpr uint64_t kSecretMagic = 0x3154455243455350;  // "PSECRET1"
struct SecretFile {
  uint64_t magic = kSecretMagic;
  limit::Secret secret;
  uint64_t check = 0;
};

Error failed(const std::string& path, const char* what) {
  return Error{path + ": " + what + " failed: " + std::strerror(errno)};
}

uint64_t check_of(const limit::Secret& secret) {
  return limit::siphash13_128(secret, "penstock secret").lo;
}

Status write_secret(const std::string& path, const SecretFile& file, int directory) {
  const std::string fresh = path + ".new";
  const Fd out(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!out.valid() || ::write(out.get(), &file, sizeof file) != sizeof file ||
      ::fsync(out.get()) != 0 || ::rename(fresh.c_str(), path.c_str()) != 0 ||
      ::fsync(directory) != 0) {
    return failed(path, "writing it");
  }
  return Ok{};
}

Result<limit::Secret> load_secret(const std::string& path, int directory) {
  SecretFile file;
  const Fd in(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (in.valid()) {
    if (::read(in.get(), &file, sizeof file) != sizeof file || file.magic != kSecretMagic ||
        file.check != check_of(file.secret)) {
      return Error{path +
                   " is damaged. Put back a copy of it; or remove it: then nobody can see "
                   "their earlier jobs any more, as their owners are hashed under it"};
    }
    return file.secret;
  }
  if (errno != ENOENT) {
    return failed(path, "reading it");
  }
  if (::getrandom(&file.secret, sizeof file.secret, 0) != sizeof file.secret) {
    return failed(path, "getrandom");
  }
  file.check = check_of(file.secret);
  if (Status written = write_secret(path, file, directory); !written) {
    return written.error();
  }
  return file.secret;
}

}  // namespace

Result<StateFolder> StateFolder::open(const std::string& path, const std::string& group) {
  StateFolder folder;
  if (!group.empty()) {
    const struct group* const found = ::getgrnam(group.c_str());
    if (found == nullptr) {
      return Error{"there is no group '" + group + "'"};
    }
    folder.group = found->gr_gid;
  }
  std::error_code made;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), made);
  const bool anew = ::mkdir(path.c_str(), kFolderMode) == 0;
  if (!anew && errno != EEXIST) {
    return failed(path, "mkdir");
  }
  const Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || (anew && ::fchmod(directory.get(), kFolderMode) != 0)) {
    return failed(path, "open");
  }
  folder.path = std::filesystem::canonical(path, made).string();
  if (made) {
    return failed(path, "finding");
  }
  // Nginx's workers go through it to the results.
  if (folder.group != static_cast<gid_t>(-1) &&
      ::fchown(directory.get(), static_cast<uid_t>(-1), folder.group) != 0) {
    return failed(path, "chown");
  }
  folder.lock.reset(::open((path + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!folder.lock.valid()) {
    return failed(path + "/lock", "open");
  }
  if (::flock(folder.lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{"another penstockd uses " + path + "; give each a `state` of its own"};
  }
  auto secret = load_secret(path + "/secret", directory.get());
  if (!secret) {
    return secret.error();
  }
  folder.secret = *secret;
  return folder;
}

Status StateFolder::flush() const {
  const Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || ::fsync(directory.get()) != 0) {
    return failed(path, "flushing it");
  }
  return Ok{};
}

}  // namespace penstock::queue
