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

#include <condition_variable>
#include <functional>
#include <iterator>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

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
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    more_.notify_one();
    thread_.join();
  }
  GroupFlusher(const GroupFlusher&) = delete;
  GroupFlusher& operator=(const GroupFlusher&) = delete;

  // `alone`: nothing else is to be done meanwhile, so that the caller itself may wait for the disk.
  void add(Group group, bool alone) {
    std::unique_lock lock(mutex_);
    const bool idle = waiting_.empty() && !busy_ && !lost_;
    waiting_.push_back(std::move(group));
    if (idle && alone) {
      flush(lock);
    } else if (idle) {
      lock.unlock();
      more_.notify_one();
    }
  }

  // Until all are on disk; false: that cannot be.
  bool drain() {
    std::unique_lock lock(mutex_);
    drained_.wait(lock, [this] { return !busy_ && (waiting_.empty() || lost_); });
    return !lost_;
  }

  // After a flush has failed: the groups of which nobody knows whether they are on disk.
  std::vector<Group> take_lost() {
    const std::lock_guard lock(mutex_);
    return lost_ ? std::exchange(waiting_, {}) : std::vector<Group>();
  }
  // What they had written is safe: groups are flushed again.
  void resume() {
    const std::lock_guard lock(mutex_);
    lost_ = false;
    more_.notify_one();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      const auto ready = [this] { return !waiting_.empty() && !busy_ && !lost_; };
      more_.wait(lock, [&] { return stopping_ || ready(); });
      if (!ready()) {
        return;
      }
      flush(lock);
    }
  }

  // REQUIRES: the lock is held, as it is again at the end.
  void flush(std::unique_lock<std::mutex>& lock) {
    std::vector<Group> groups = std::exchange(waiting_, {});
    busy_ = true;
    lock.unlock();
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
    lock.lock();
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
  std::mutex mutex_;
  std::condition_variable more_, drained_;
  std::vector<Group> waiting_;  // guarded by mutex_, as is all below
  bool busy_ = false;           // some are being flushed
  bool lost_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace penstock::queue
