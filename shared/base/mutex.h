// Mutex, MutexLock and CondVar: those of the standard library, with what clang's thread safety
// analysis needs to check who holds what (https://clang.llvm.org/docs/ThreadSafetyAnalysis.html).
//
// GUARDED_BY(m) on a member: it is read and written with m held. REQUIRES(m) on a function: its
// caller holds m. `make lint` checks both; other compilers see neither.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define PENSTOCK_THREAD_SAFETY(attribute) __attribute__((attribute))
#else
#define PENSTOCK_THREAD_SAFETY(attribute)
#endif
#define GUARDED_BY(mutex) PENSTOCK_THREAD_SAFETY(guarded_by(mutex))
#define REQUIRES(mutex) PENSTOCK_THREAD_SAFETY(requires_capability(mutex))

namespace penstock {

class PENSTOCK_THREAD_SAFETY(capability("mutex")) Mutex {
 public:
  void lock() PENSTOCK_THREAD_SAFETY(acquire_capability()) { mutex_.lock(); }
  void unlock() PENSTOCK_THREAD_SAFETY(release_capability()) { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds it to the end of the block.
class PENSTOCK_THREAD_SAFETY(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) PENSTOCK_THREAD_SAFETY(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() PENSTOCK_THREAD_SAFETY(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class CondVar {
 public:
  void notify_one() { waiting_.notify_one(); }
  void notify_all() { waiting_.notify_all(); }
  // The mutex is let go meanwhile. It may return for no reason: whoever waits looks again.
  void wait(Mutex& mutex) REQUIRES(mutex) {
    std::unique_lock lock(mutex.mutex_, std::adopt_lock);
    waiting_.wait(lock);
    lock.release();
  }
  // False: that time has come.
  bool wait_until(Mutex& mutex, std::chrono::steady_clock::time_point until) REQUIRES(mutex) {
    std::unique_lock lock(mutex.mutex_, std::adopt_lock);
    const bool called = waiting_.wait_until(lock, until) == std::cv_status::no_timeout;
    lock.release();
    return called;
  }

 private:
  std::condition_variable waiting_;
};

}  // namespace penstock
