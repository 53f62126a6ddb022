// FileCalls: the system calls that write files under STATE. A test can make each of them fail, or a
// file vanish. They return what the calls of those names return: -1, and errno.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

namespace penstock::queue {

class FileCalls {
 public:
  virtual ~FileCalls() = default;
  // The system's own.
  static FileCalls& system() {
    static FileCalls calls;
    return calls;
  }

  virtual int open(int folder, const char* name, int flags, mode_t mode) {
    return ::openat(folder, name, flags | O_CLOEXEC | O_NOFOLLOW, mode);
  }
  virtual ssize_t write(int file, const char* bytes, size_t size, off_t at) {
    return ::pwrite(file, bytes, size, at);
  }
  virtual ssize_t read(int file, char* bytes, size_t size, off_t at) {
    return ::pread(file, bytes, size, at);
  }
  virtual int truncate(int file, off_t size) { return ::ftruncate(file, size); }
  virtual int allocate(int file, off_t size) { return ::fallocate(file, 0, 0, size); }
  virtual int flush(int file) { return ::fdatasync(file); }
  virtual int flush_folder(int folder) { return ::fsync(folder); }
  virtual int rename(int folder, const char* from, const char* to) {
    return ::renameat(folder, from, folder, to);
  }
  virtual int remove(int folder, const char* name) { return ::unlinkat(folder, name, 0); }
};

}  // namespace penstock::queue
