// GroupFlusher: groups of work that are committed, in order, until they are on disk.
//
// The disk is flushed by a thread of its own while the next group is put together: group commit
// with the flush of one group overlapping the work of the next, as DeWitt et al. describe it
// ("Implementation Techniques for Main Memory Database Systems", SIGMOD 1984, section 5.2). Groups
// that gather meanwhile share one flush.
//
// A flush that fails may have dropped what it was to write, and the next one would say nothing of
// it (https://lwn.net/Articles/752063/). So nothing is flushed any more until the owner has taken
// the groups that are not safe, and has written again what they wrote: see take_lost().
#pragma once

#include <functional>
#include <iterator>
#include <thread>
#include <utility>
#include <vector>

#include "shared/base/mutex.h"

namespace penstock::queue {

// `Group` has a `bool writes`: whether there is something of it to be flushed.
template <typename Group>
class GroupFlusher {
 public:
  struct Calls {
    std::function<bool()> flush;             // all that was committed so far; false: it failed
    std::function<void(Group&)> on_flushed;  // in order
    std::function<void()> on_failed;         // a flush has failed
  };

  // Calls come from the flusher's thread, or from within add().
  explicit GroupFlusher(Calls calls) : calls_(std::move(calls)), thread_([this] { work(); }) {}
  ~GroupFlusher() {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    more_.notify_one();
    thread_.join();
  }
  GroupFlusher(const GroupFlusher&) = delete;
  GroupFlusher& operator=(const GroupFlusher&) = delete;

  // `alone`: there is nothing else to do meanwhile, so the caller itself may wait for the disk.
  void add(Group group, bool alone) {
    const MutexLock lock(mutex_);
    const bool idle = waiting_.empty() && !busy_ && !lost_;
    waiting_.push_back(std::move(group));
    if (idle && alone) {
      flush();
    } else if (idle) {
      more_.notify_one();
    }
  }

  // Waits until all groups are on disk. False: that cannot be.
  bool drain() {
    const MutexLock lock(mutex_);
    while (busy_ || !(waiting_.empty() || lost_)) {
      drained_.wait(mutex_);
    }
    return !lost_;
  }

  // After a flush has failed: the groups of which nobody knows whether they are on disk.
  std::vector<Group> take_lost() {
    const MutexLock lock(mutex_);
    return lost_ ? std::exchange(waiting_, {}) : std::vector<Group>();
  }
  // What they had written is safe: groups are flushed again.
  void resume() {
    const MutexLock lock(mutex_);
    lost_ = false;
    more_.notify_one();
  }

 private:
  bool is_ready() const REQUIRES(mutex_) { return !waiting_.empty() && !busy_ && !lost_; }

  void work() {
    const MutexLock lock(mutex_);
    for (;;) {
      while (!stopping_ && !is_ready()) {
        more_.wait(mutex_);
      }
      if (!is_ready()) {
        return;
      }
      flush();
    }
  }

  // The mutex is let go meanwhile.
  void flush() REQUIRES(mutex_) {
    std::vector<Group> groups = std::exchange(waiting_, {});
    busy_ = true;
    mutex_.unlock();
    bool writes = false;
    for (const Group& group : groups) {
      writes = writes || group.writes;
    }
    const bool good = !writes || calls_.flush();
    if (good) {
      for (Group& group : groups) {
        calls_.on_flushed(group);
      }
    }
    mutex_.lock();
    busy_ = false;
    if (!good) {
      waiting_.insert(waiting_.begin(), std::make_move_iterator(groups.begin()),
                      std::make_move_iterator(groups.end()));
      lost_ = true;
      calls_.on_failed();
    }
    drained_.notify_all();
    more_.notify_one();
  }

  const Calls calls_;
  Mutex mutex_;
  CondVar more_, drained_;
  std::vector<Group> waiting_ GUARDED_BY(mutex_);
  bool busy_ GUARDED_BY(mutex_) = false;  // some are being flushed
  bool lost_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace penstock::queue
