#include "worker/queue/store/state_folder.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "shared/base/bytes.h"
#include "shared/base/call_failed.h"

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

uint64_t check_of(const limit::Secret& secret) {
  return limit::siphash13_128(secret, "penstock secret").lo;
}

Status write_secret(const std::string& path, const SecretFile& file, int directory) {
  const std::string fresh = path + ".new";
  const Fd out(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!out.valid() || ::write(out.get(), &file, sizeof file) != sizeof file ||
      ::fsync(out.get()) != 0 || ::rename(fresh.c_str(), path.c_str()) != 0 ||
      ::fsync(directory) != 0) {
    return call_failed(path, "writing it");
  }
  return Ok{};
}

// Made where there is none.
Result<limit::Secret> load_secret(const std::string& path, int directory) {
  auto found = StateFolder::read_secret(path);
  if (found || found.error().kind != ErrorKind::kGone) {
    return found;
  }
  SecretFile file;
  if (::getrandom(&file.secret, sizeof file.secret, 0) != sizeof file.secret) {
    return call_failed(path, "getrandom");
  }
  file.check = check_of(file.secret);
  if (Status written = write_secret(path, file, directory); !written) {
    return written.error();
  }
  return file.secret;
}

// Of this start of the machine.
std::string boot_id() {
  char id[64] = {};
  const Fd file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  const ssize_t n = file.valid() ? ::read(file.get(), id, sizeof id) : 0;
  return {id, static_cast<size_t>(std::max<ssize_t>(n, 0))};
}

constexpr char kUnclean[] = "unclean";
constexpr char kWipe[] = "wipe";

// Its mark is there, and is not of this boot.
bool was_left_open(FileCalls& calls, int directory) {
  const Fd mark(calls.open(directory, kUnclean, O_RDONLY, 0));
  char id[64] = {};
  const ssize_t n = mark.valid() ? calls.read(mark.get(), id, sizeof id, 0) : 0;
  return mark.valid() && (n <= 0 || std::string_view(id, static_cast<size_t>(n)) != boot_id());
}

}  // namespace

Result<StateFolder> StateFolder::open(const std::string& path, const std::string& group,
                                      FileCalls& calls, Fd lock) {
  StateFolder folder;
  folder.calls = &calls;
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
    return call_failed(path, "mkdir");
  }
  folder.directory.reset(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Fd& directory = folder.directory;
  if (!directory.valid() || (anew && ::fchmod(directory.get(), kFolderMode) != 0)) {
    return call_failed(path, "open");
  }
  folder.path = std::filesystem::canonical(path, made).string();
  if (made) {
    return call_failed(path, "finding");
  }
  // Nginx's workers go through it to the results.
  if (folder.group != static_cast<gid_t>(-1) &&
      ::fchown(directory.get(), static_cast<uid_t>(-1), folder.group) != 0) {
    return call_failed(path, "chown");
  }
  folder.lock = std::move(lock);
  if (!folder.lock.valid()) {
    folder.lock.reset(::open((path + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  }
  if (!folder.lock.valid()) {
    return call_failed(path + "/lock", "open");
  }
  if (::flock(folder.lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{"another penstockd uses " + path + "; give each a `state` of its own",
                 ErrorKind::kBusy};
  }
  auto secret = load_secret(path + "/secret", directory.get());
  if (!secret) {
    return secret.error();
  }
  folder.secret = *secret;
  folder.unclean = was_left_open(calls, directory.get());
  folder.to_wipe = Fd(calls.open(directory.get(), kWipe, O_RDONLY, 0)).valid();
  return folder;
}

Result<limit::Secret> StateFolder::read_secret(const std::string& path) {
  SecretFile file;
  const Fd in(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!in.valid()) {
    return call_failed(path, "reading it");
  }
  if (::read(in.get(), &file, sizeof file) != sizeof file || file.magic != kSecretMagic ||
      file.check != check_of(file.secret)) {
    return Error{path +
                     " is damaged. Put back a copy of it; or remove it: then nobody can see "
                     "their earlier jobs any more, as their owners are hashed under it",
                 ErrorKind::kCorrupt};
  }
  return file.secret;
}

void StateFolder::note_open() const {
  const std::string id = boot_id();
  const Fd mark(calls->open(directory.get(), kUnclean, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  if (mark.valid()) {
    calls->write(mark.get(), id.data(), id.size(), 0);
    calls->flush(mark.get());
  }
}

void StateFolder::note_closed() const { calls->remove(directory.get(), kUnclean); }

void StateFolder::note_purge() const {
  const Fd mark(calls->open(directory.get(), kWipe, O_WRONLY | O_CREAT, 0600));
  calls->flush_folder(directory.get());
}

void StateFolder::note_wiped() const { calls->remove(directory.get(), kWipe); }

Status StateFolder::flush() const {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  const Fd above(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (calls->flush_folder(directory.get()) != 0) {
    return call_failed(path, "flushing it");
  }
  if (above.valid() && calls->flush_folder(above.get()) != 0) {
    return call_failed(parent, "flushing it");
  }
  return Ok{};
}

}  // namespace penstock::queue
