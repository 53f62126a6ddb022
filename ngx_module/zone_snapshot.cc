#include "ngx_module/zone_snapshot.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "shared/base/clock.h"
#include "shared/base/fd.h"

namespace penstock {
namespace {

constexpr int kSafely = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;

Error failed(const char* what, const char* path) {
  const char* why = std::strerror(errno);
  return Error{std::string(what) + " \"" + path + "\" failed: " + why};
}

bool has_name(const struct stat& file, const char* path) noexcept {
  struct stat named;
  return lstat(path, &named) == 0 && named.st_dev == file.st_dev && named.st_ino == file.st_ino;
}

// PATH.tmp: empty, nobody else's, and locked while it is written. An invalid Fd: another process is
// writing it. One that a process left behind when it was killed has no lock.
Result<Fd> open_temporary(const char* path) {
  for (int attempt = 0;; ++attempt) {
    Fd fd(open(path, O_RDWR | O_CREAT | kSafely, 0600));
    const int error = errno;
    struct stat st;
    if (fd.valid()) {
      if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0 || fstat(fd.get(), &st) != 0 ||
          !has_name(st, path)) {
        return Fd();
      }
      if (S_ISREG(st.st_mode) && st.st_uid == geteuid() && st.st_nlink == 1 &&
          ftruncate(fd.get(), 0) == 0) {
        return fd;
      }
    }
    // Of another user, or no file: in the way.
    if (attempt == 1 || unlink(path) != 0) {
      errno = error;
      return failed("open()", path);
    }
  }
}

bool sync_folder(const char* path) noexcept {
  const Fd folder(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return folder.valid() && fsync(folder.get()) == 0;
}

Status fill_and_rename(SnapshotFile& file, const limit::Table& table, const limit::Instant& now,
                       int fd) {
  auto digest = limit::write_snapshot(fd, table, now);
  if (!digest) {
    return Error{std::string("writing \"") + file.temporary + "\": " + digest.error().message};
  }
  struct stat st;
  if (geteuid() == 0 && fchown(fd, file.owner, static_cast<gid_t>(-1)) != 0) {
    return failed("chown()", file.temporary);
  }
  if (fsync(fd) != 0 || fstat(fd, &st) != 0) {
    return failed("fsync()", file.temporary);
  }
  if (rename(file.temporary, file.path) != 0) {
    return failed("rename()", file.temporary);
  }
  file.written = true;
  file.digest = *digest;
  file.device = st.st_dev;
  file.inode = st.st_ino;
  return sync_folder(file.folder) ? Status(Ok{}) : Status(failed("fsync()", file.folder));
}

// Not when somebody else has put another file there: it may be older.
bool is_unchanged(const SnapshotFile& file, const limit::Table& table, const limit::Instant& now) {
  struct stat st = {};
  st.st_dev = file.device;
  st.st_ino = file.inode;
  return file.written && has_name(st, file.path) &&
         limit::snapshot_digest(table, now) == file.digest;
}

}  // namespace

FoundSnapshot read_snapshot(const char* path, std::span<std::byte> memory,
                            std::optional<limit::Table>& table) {
  table.reset();
  const Fd fd(open(path, O_RDONLY | kSafely));
  struct stat st;
  if (!fd.valid()) {
    return errno == ENOENT ? FoundSnapshot{}
                           : FoundSnapshot{Found::unreadable, failed("open()", path).message};
  }
  if (fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) {
    return {Found::unreadable, "it is no regular file"};
  }
  limit::SnapshotReader reader(fd.get());
  auto head = reader.head();
  if (!head) {
    return {Found::damaged, head.error().message};
  }
  std::optional<limit::Table> made;
  if (!memory.empty()) {
    auto created = limit::Table::create(
        memory, head->secret, limit::clock_offset_ns(*head, monotonic_ns(), realtime_ns()));
    if (!created || created->slots() != head->slots) {
      return {Found::other_size, "", head->slots};
    }
    made = *created;
  }
  if (const Status body = reader.body(made ? &*made : nullptr); !body) {
    return {Found::damaged, body.error().message};
  }
  table = made;
  return {Found::good, "", head->slots};
}

Result<Write> write_snapshot(SnapshotFile& file, const limit::Table& table) {
  const limit::Instant now = table.instant(monotonic_ns(), realtime_ns());
  if (is_unchanged(file, table, now)) {
    return Write::unchanged;
  }
  auto fd = open_temporary(file.temporary);
  if (!fd) {
    return fd.error();
  }
  if (!fd->valid()) {
    return Write::busy;
  }
  if (Status done = fill_and_rename(file, table, now, fd->get()); !done) {
    unlink(file.temporary);
    return done.error();
  }
  return Write::done;
}

}  // namespace penstock
