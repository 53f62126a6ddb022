// FaultFiles: file calls of which one kind fails, for as long or as often as is wanted.
#pragma once

#include <cerrno>
#include <climits>
#include <mutex>
#include <set>

#include "worker/queue/store/file_calls.h"

namespace penstock::queue {

class FaultFiles final : public FileCalls {
 public:
  enum class Call { kNone, kOpen, kWrite, kRead, kTruncate, kAllocate, kFlush, kFolder, kRename };

  void fail(Call call, int error, int times = INT_MAX) {
    const std::lock_guard lock(mutex_);
    call_ = call;
    error_ = error;
    left_ = times;
  }
  void heal() { fail(Call::kNone, 0); }
  bool happened() {
    const std::lock_guard lock(mutex_);
    return left_ == 0;
  }

  bool flushed(const char* folder) {
    struct stat status {};
    ::stat(folder, &status);
    const std::lock_guard lock(mutex_);
    return flushed_folders_.contains(status.st_ino);
  }

  int open(int folder, const char* name, int flags, mode_t mode) override {
    return fails(Call::kOpen) ? -1 : FileCalls::open(folder, name, flags, mode);
  }
  ssize_t write(int file, const char* bytes, size_t size, off_t at) override {
    return fails(Call::kWrite) ? -1 : FileCalls::write(file, bytes, size, at);
  }
  ssize_t read(int file, char* bytes, size_t size, off_t at) override {
    return fails(Call::kRead) ? -1 : FileCalls::read(file, bytes, size, at);
  }
  int truncate(int file, off_t size) override {
    return fails(Call::kTruncate) ? -1 : FileCalls::truncate(file, size);
  }
  int allocate(int file, off_t size) override {
    return fails(Call::kAllocate) ? -1 : FileCalls::allocate(file, size);
  }
  int flush(int file) override { return fails(Call::kFlush) ? -1 : FileCalls::flush(file); }
  int flush_folder(int folder) override {
    struct stat status {};
    ::fstat(folder, &status);
    {
      const std::lock_guard lock(mutex_);
      flushed_folders_.insert(status.st_ino);
    }
    return fails(Call::kFolder) ? -1 : FileCalls::flush_folder(folder);
  }
  int rename(int folder, const char* from, const char* to) override {
    return fails(Call::kRename) ? -1 : FileCalls::rename(folder, from, to);
  }

 private:
  bool fails(Call call) {
    const std::lock_guard lock(mutex_);
    if (call != call_ || left_ == 0) {
      return false;
    }
    --left_;
    errno = error_;
    return true;
  }

  std::mutex mutex_;
  Call call_ = Call::kNone;
  int error_ = 0;
  int left_ = 0;
  std::set<ino_t> flushed_folders_;
};

}  // namespace penstock::queue
