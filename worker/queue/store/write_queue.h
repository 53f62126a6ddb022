// WriteQueue: does what the store is asked, on a thread of its own, in the order in which it was
// asked.
//
// Group commit: what has gathered meanwhile is one transaction, and another thread flushes the log,
// for many jobs at once, while the next transaction is under way (GroupFlusher). Callers are told
// on their own thread, by tell_done(), after the flush.
//
// A transaction that fails (kBroken of DiskState) is tried again: its promises are refused, its
// reads done alone, and all else waits, in order. One in which an operation fails by itself is done
// again with a savepoint around each (HeldWrites). What a failed flush may have dropped (kLost) is
// written once more before anything else.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/mutex.h"
#include "worker/queue/store/disk_state.h"
#include "worker/queue/store/group_flusher.h"
#include "worker/queue/store/held_writes.h"
#include "worker/queue/store/operation.h"
#include "worker/queue/store/stored_jobs.h"

namespace penstock::queue {

class WriteQueue {
 public:
  struct Options {
    int64_t retry_ms = 1000;   // after a write that failed
    uint32_t file_tries = 10;  // before what fails by itself is given up
    uint64_t log_bytes = 0;    // of the database's log, written over again and again
    std::function<void(const JobId&, const std::string& why)> on_lost_result;
  };

  // Both outlive this. Only its thread uses the jobs as long as it lives.
  WriteQueue(StoredJobs& jobs, DiskState& disk, Options options);
  // What was asked is written first.
  ~WriteQueue();
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  void ask(Operation op);
  void write(std::function<bool()> run, std::function<void()> on_done = {}) {
    ask({.kind = Operation::kWrite, .run = std::move(run), .on_done = std::move(on_done)});
  }
  // `run` fills what `on_done` is told.
  template <typename T>
  void ask_for(Operation::Kind kind, std::function<bool(T&)> run, std::function<void(T)> on_done) {
    auto value = std::make_shared<T>();
    ask({.kind = kind,
         .run =
             [run = std::move(run), value] {
               *value = {};  // nothing of an earlier run
               return run(*value);
             },
         .on_done = [on_done = std::move(on_done), value] { on_done(std::move(*value)); }});
  }
  // Waits until `run` has run on the thread. For the start: only the thread uses the database.
  bool ask_and_wait(const std::function<bool()>& run);
  // Readable when somebody can be told.
  int event_fd() const { return event_.get(); }
  void tell_done();
  // For an operation that runs apart: what is deleted goes from the disk, too: free pages are given
  // back, some at a time, then the log is emptied. kNotNow: it cannot be done.
  enum class Wiped : uint8_t { kAll, kSome, kNotNow };
  Wiped wipe_some();
  // Likewise: the log alone. False: it cannot be done now.
  bool empty_log();
  size_t pending() const { return pending_; }
  size_t pending_bytes() const { return pending_bytes_; }

  struct Figures {
    uint64_t commits, commit_ns, lost_results;
  };
  Figures figures() const { return {commits_, commit_ns_, lost_results_}; }

 private:
  // What somebody is to be told.
  struct Done {
    std::function<void()> on_done;
    bool asked = true;
    size_t bytes = 0;
  };
  // What was one transaction.
  struct Group {
    std::vector<Operation> ops;
    bool writes = false;
    int64_t begun_ns = 0;
    std::vector<JobId> unwanted_files;
  };

  // The store's thread's:
  void work();
  void wait_for_more() REQUIRES(mutex_);
  void turn(std::vector<Operation> ops, bool last);
  void run_apart(std::vector<Operation>& ops);
  void group(std::vector<Operation> ops);
  void one_by_one(std::vector<Operation> ops);
  bool run_alone(Operation& op, Fault& fault);
  void give_up(const JobId& id, std::vector<Operation>&& ops, std::string&& why);
  void committed(std::vector<Operation> ops, bool writes, int64_t begun_ns);
  void checkpoint();
  void fail(std::vector<Operation>& ops, const Fault& fault);
  void set_aside(std::vector<Operation>& ops, bool full);
  void refuse(Operation& promise, bool full);
  bool rewrite_lost();
  void refuse_unsafe_promises();
  bool is_idle();
  // When it is tried again.
  int64_t later_ns() const;

  // The flusher's thread's, or the store's:
  void on_flushed(Group& group);
  void on_flush_failed();
  void hand_back(std::vector<Operation>& ops);

  StoredJobs& jobs_;
  DiskState& disk_;
  const Options options_;
  const Fd event_;
  size_t pending_ = 0;  // the owner's thread's, as is:
  size_t pending_bytes_ = 0;

  Mutex mutex_;
  CondVar wake_;
  std::vector<Operation> inbox_ GUARDED_BY(mutex_);
  std::vector<Done> done_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  bool newly_lost_ GUARDED_BY(mutex_) = false;
  std::atomic<uint64_t> commits_{0};
  std::atomic<uint64_t> commit_ns_{0};
  std::atomic<uint64_t> lost_results_{0};

  // The store's thread's:
  std::vector<Operation> backlog_;  // writes that are tried again
  HeldWrites held_;
  std::vector<Group> unsafe_;  // written, but not safe: see rewrite_lost()
  int64_t checkpoint_ns_ = 0;  // not before
  int64_t rewrite_ns_ = 0;     // of the log: not before
  int64_t held_ns_ = 0;        // what is held: not before
  int64_t reserve_ns_ = 0;     // likewise
  std::optional<GroupFlusher<Group>> flusher_;
  std::thread thread_;
};

}  // namespace penstock::queue
