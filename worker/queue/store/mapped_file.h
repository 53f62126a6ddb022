// A file of a fixed size in memory: what is written there outlives the process, but not the
// machine.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <string>

#include "shared/base/call_failed.h"
#include "shared/base/fd.h"
#include "shared/base/result.h"

namespace penstock::queue {

// Opens it, or makes it, and gives it all its room on disk. The caller's to munmap.
inline Result<void*> map_file(const std::string& path, size_t bytes) {
  const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) {
    return call_failed(path, "open");
  }
  if (const int error = ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes)); error != 0) {
    errno = error;
    return call_failed(path, "posix_fallocate");
  }
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) {
    return call_failed(path, "mmap");
  }
  return memory;
}

}  // namespace penstock::queue
