#include "ngx_module/zone/memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "ngx_module/zone/owned_file.h"
#include "shared/base/clock.h"
#include "shared/base/fd.h"
#include "shared/base/large_pages.h"

namespace penstock {
namespace {

constexpr char kUnpublished[] = ".new";
constexpr int kOpen = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;

bool lock(int fd, short type) noexcept {
  struct flock range = {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  return fcntl(fd, F_OFD_SETLK, &range) == 0;
}

bool in_tmpfs(int fd) noexcept {
  struct statfs fs;
  return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

bool has_size(int fd, size_t bytes) noexcept {
  struct stat st;
  return fstat(fd, &st) == 0 && st.st_size == static_cast<off_t>(bytes);
}

std::unique_ptr<ZoneMemory> map(Fd& fd, size_t bytes, const char* name, const char* suffix) {
  const std::span<std::byte> mapped = map_shared(bytes, fd.get());
  if (mapped.empty()) {
    return nullptr;
  }
  auto memory = std::make_unique<ZoneMemory>();
  memory->cycles = 1;
  memory->fd = fd.release();
  memory->at = mapped.data();
  memory->bytes = bytes;
  std::snprintf(memory->name, sizeof memory->name, "%s%s", name, suffix);
  return memory;
}

enum class Step { done, again, none };

// One look at the file of this name. `again`: somebody else has it. `none`: it cannot be had, nor
// removed. `found` stays open if what is there is of no use.
Step attach_existing(const char* name, size_t bytes, bool upgrade, const ZoneMemory* own,
                     OpenedMemory& opened, Fd& found) {
  Fd fd(open(name, kOpen));
  if (!fd.valid() && errno == ENOENT) {
    return Step::done;
  }
  if (!fd.valid() && !is_in_the_way(errno)) {
    opened.fault = failed("open()", name);
    return Step::none;
  }
  if (!fd.valid() || !is_ours(fd.get()) || !in_tmpfs(fd.get())) {
    if (unlink(name) == 0 || errno == ENOENT) {  // a trap, or no memory at all
      return Step::done;
    }
    opened.fault = failed("removing another user's", name);
    return Step::none;
  }
  const bool shared = upgrade || (own != nullptr && has_name(own->fd, name));
  if (!lock(fd.get(), shared ? F_RDLCK : F_WRLCK) || !has_name(fd.get(), name)) {
    return Step::again;
  }
  if (!has_size(fd.get(), bytes)) {
    opened.fault = "it is of another size";
    found = std::move(fd);
    return Step::done;
  }
  auto memory = map(fd, bytes, name, "");
  if (memory == nullptr) {
    opened.fault = failed("mmap()", name);
    found = std::move(fd);
    return Step::done;
  }
  auto table = limit::Table::attach({memory->at, bytes});
  if (!table) {
    opened.fault = table.error().message;
    found.reset(dup(memory->fd));
    drop(memory.release());
    return Step::done;
  }
  lock(memory->fd, F_RDLCK);
  opened.table = *table;
  opened.memory = memory.release();
  return Step::done;
}

// `found`: what has the name and is of no use.
Step make_new(const char* name, size_t bytes, const Fd& found, OpenedMemory& opened) {
  char unpublished[sizeof(ZoneMemory::name)];
  std::snprintf(unpublished, sizeof unpublished, "%s%s", name, kUnpublished);
  Fd fd(open(unpublished, kOpen | O_CREAT, 0600));
  if (!fd.valid() || !is_ours(fd.get())) {
    if (unlink(unpublished) == 0) {
      return Step::again;
    }
    opened.fault = failed("open()", unpublished);
    return Step::done;
  }
  // Whoever has it locked is about to publish it; whoever had may just have done so.
  if (!lock(fd.get(), F_WRLCK) || !has_name(fd.get(), unpublished)) {
    return Step::again;
  }
  struct stat st;
  if (found.valid() ? !has_name(found.get(), name) : lstat(name, &st) == 0) {
    unlink(unpublished);
    return Step::again;
  }
  int error = in_tmpfs(fd.get()) ? ftruncate(fd.get(), 0) : EOPNOTSUPP;
  error = error == 0 ? posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes)) : error;
  auto memory = error == 0 ? map(fd, bytes, name, kUnpublished) : nullptr;
  if (memory == nullptr) {
    errno = error == 0 ? errno : error;
    opened.fault = failed("taking memory in", name);
    unlink(unpublished);
    return Step::done;
  }
  opened.memory = memory.release();
  return Step::done;
}

}  // namespace

void pause_between_attempts() noexcept {
  constexpr timespec kPause = {0, 50 * kNsPerMs};
  nanosleep(&kPause, nullptr);
}

Result<OpenedMemory> open_memory(const char* name, size_t bytes, bool upgrade,
                                 const ZoneMemory* own) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    OpenedMemory opened;
    Fd found;
    Step step = attach_existing(name, bytes, upgrade, own, opened, found);
    if (step == Step::done && opened.memory == nullptr) {
      step = make_new(name, bytes, found, opened);
    }
    if (step != Step::again) {
      return opened;
    }
    pause_between_attempts();
  }
  return Error{std::string("its counters, in \"") + name +
               "\", are in use by another Nginx, or by what is left of one: stop that first, or "
               "give this one another file="};
}

bool in_use(const char* name) {
  const Fd fd(open(name, kOpen));
  return fd.valid() && is_ours(fd.get()) && !lock(fd.get(), F_WRLCK);
}

void remove_left(const char* name) noexcept {
  const Fd fd(open(name, kOpen));
  if (fd.valid() && is_ours(fd.get()) && lock(fd.get(), F_WRLCK) && has_name(fd.get(), name)) {
    unlink(name);
  }
}

Status publish(ZoneMemory& memory, const char* name) {
  if (std::strcmp(memory.name, name) == 0) {
    return Ok{};
  }
  const Standing standing = standing_of(memory);
  if (standing == Standing::superseded && *name == '\0') {
    return Ok{};  // what has the name is not ours to remove
  }
  if (standing != Standing::current) {
    remove_left(name);  // older than what is used now
    std::snprintf(memory.name, sizeof memory.name, "%s", name);
    return *name == '\0' ? Status(Ok{})
                         : Status(Error{std::string("its file in tmpfs was removed, and cannot be "
                                                    "named \"") +
                                        name + "\""});
  }
  const int done = *name == '\0' ? unlink(memory.name) : rename(memory.name, name);
  if (done != 0) {
    return Error{failed("rename()", memory.name)};
  }
  std::snprintf(memory.name, sizeof memory.name, "%s", name);
  lock(memory.fd, F_RDLCK);
  return Ok{};
}

Standing standing_of(const ZoneMemory& memory) noexcept {
  struct stat st;
  if (*memory.name == '\0' || (lstat(memory.name, &st) != 0 && errno == ENOENT)) {
    return Standing::nameless;
  }
  return has_name(memory.fd, memory.name) ? Standing::current : Standing::superseded;
}

bool lock_alone(const ZoneMemory& memory) noexcept {
  if (lock(memory.fd, F_WRLCK)) {
    return true;
  }
  lock(memory.fd, F_UNLCK);
  return false;
}

void drop(ZoneMemory* memory) noexcept {
  if (--memory->cycles != 0) {
    return;
  }
  const size_t size = std::strlen(memory->name);
  if (size > sizeof kUnpublished - 1 &&
      std::strcmp(memory->name + size - (sizeof kUnpublished - 1), kUnpublished) == 0 &&
      has_name(memory->fd, memory->name)) {
    unlink(memory->name);
  }
  munmap(memory->at, memory->bytes);
  close(memory->fd);
  delete memory;
}

void forget(ZoneMemory* memory) noexcept {
  if (--memory->cycles == 0) {
    delete memory;
  }
}

}  // namespace penstock
