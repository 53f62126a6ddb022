#include "ngx_module/zone/snapshot.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "ngx_module/zone/owned_file.h"
#include "shared/base/clock.h"
#include "shared/base/fd.h"

namespace penstock {
namespace {

constexpr int kSafely = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;

// PATH.tmp: empty, nobody else's, its owner's as PATH will be, and locked while it is written. An
// invalid Fd: another process is writing it. One that a process left behind when it was killed has
// no lock.
Result<Fd> open_temporary(const char* path, uid_t owner) {
  for (int attempt = 0;; ++attempt) {
    Fd fd(open(path, O_RDWR | O_CREAT | kSafely, 0600));
    int error = errno;
    if (fd.valid()) {
      struct stat st;
      if (fstat(fd.get(), &st) != 0) {
        return Error{failed("fstat()", path)};
      }
      if (st.st_nlink == 0) {
        return Fd();  // it was just removed, or replaced
      }
      if (is_ours(st, owner)) {
        // Its last writer may have given it another name before it let go of it.
        if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0 || !has_name(st, path)) {
          return Fd();
        }
        if ((geteuid() == 0 && fchown(fd.get(), owner, static_cast<gid_t>(-1)) != 0) ||
            fchmod(fd.get(), 0600) != 0 || ftruncate(fd.get(), 0) != 0) {
          return Error{failed("preparing", path)};
        }
        return fd;
      }
      error = EACCES;
    }
    if (attempt == 1 || !is_in_the_way(error) || unlink(path) != 0) {
      errno = error;
      return Error{failed("open()", path)};
    }
  }
}

bool sync_folder(const char* path) noexcept {
  const Fd folder(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return folder.valid() && fsync(folder.get()) == 0;
}

// `busy`: another process has put its own in place of PATH.tmp.
Result<Write> fill_and_rename(SnapshotFile& file, const limit::Table& table,
                              const limit::Instant& now, int fd) {
  auto digest = limit::write_snapshot(fd, table, now);
  if (!digest) {
    return Error{std::string("writing \"") + file.temporary + "\": " + digest.error().message};
  }
  struct stat st;
  if (fsync(fd) != 0 || fstat(fd, &st) != 0) {
    return Error{failed("fsync()", file.temporary)};
  }
  if (!has_name(st, file.temporary)) {
    return Write::busy;
  }
  if (rename(file.temporary, file.path) != 0) {
    return Error{failed("rename()", file.temporary)};
  }
  file.written = true;
  file.digest = *digest;
  file.device = st.st_dev;
  file.inode = st.st_ino;
  if (!sync_folder(file.folder)) {
    return Error{failed("fsync()", file.folder)};
  }
  return Write::done;
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

FoundSnapshot read_snapshot(const SnapshotFile& file, std::span<std::byte> memory,
                            std::optional<limit::Table>& table) {
  table.reset();
  const Fd fd(open(file.path, O_RDONLY | kSafely));
  struct stat st;
  if (!fd.valid()) {
    return errno == ENOENT ? FoundSnapshot{}
                           : FoundSnapshot{Found::unreadable, failed("open()", file.path)};
  }
  if (fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) {
    return {Found::unreadable, "it is no regular file"};
  }
  if (st.st_uid != 0 && st.st_uid != geteuid() && st.st_uid != file.owner) {
    return {Found::unreadable, "it belongs to user " + std::to_string(st.st_uid) +
                                   ", neither root nor the user of Nginx"};
  }
  if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return {Found::unreadable, "others than its owner may write to it; chmod it to 600"};
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
  auto fd = open_temporary(file.temporary, file.owner);
  if (!fd) {
    return fd.error();
  }
  if (!fd->valid()) {
    return Write::busy;
  }
  auto done = fill_and_rename(file, table, now, fd->get());
  struct stat st;
  if (!done && fstat(fd->get(), &st) == 0 && has_name(st, file.temporary)) {
    unlink(file.temporary);
  }
  return done;
}

}  // namespace penstock
