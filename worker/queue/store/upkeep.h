// Upkeep: what is done to the stored jobs beside what is asked of each: all are counted and their
// files looked at, once; what has expired is swept; what was purged is wiped; all is copied. Some
// at a time, so that promises need not wait for all of it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "shared/base/result.h"
#include "worker/queue/store/disk_state.h"
#include "worker/queue/store/state_copy.h"
#include "worker/queue/store/state_folder.h"
#include "worker/queue/store/stored_jobs.h"
#include "worker/queue/store/write_queue.h"

namespace penstock::queue {

class Upkeep {
 public:
  // All outlive this; the queue does what it was asked before they end.
  Upkeep(WriteQueue& queue, StoredJobs& jobs, DiskState& disk, const StateFolder& folder)
      : queue_(queue),
        jobs_(jobs),
        disk_(disk),
        folder_(folder),
        wipe_due_(folder.to_wipe),
        noted_(folder.to_wipe) {}
  // Nobody uses the folder yet.
  static void begin_anew(const std::string& folder) { StateCopy::remove(folder); }

  // What was there at the start is counted, looked at and wiped, while others are served.
  void look_at_all();
  void sweep(int64_t now_ms, const UsageBounds& ledger);
  // The queue's thread's: what is deleted next is to be wiped, whatever comes between.
  void note_purge();
  // What was deleted goes from free pages and from the log, too. Where that cannot be done it is
  // tried again with the next sweep.
  void wipe();
  void back_up(std::function<void(Status)> on_done);
  void forget_backup();

 private:
  struct Copying {
    std::unique_ptr<StateCopy> copy;
    Result<bool> more = true;
    std::function<void(Status)> on_done;
  };
  void count_on();
  void look_at_files(const std::shared_ptr<ResultFiles::Round>& round);
  void empty_log();
  void wipe_on(int most);
  void copy_on(const std::shared_ptr<Copying>& copying);
  void copy_some(Copying& copying);  // the queue's thread's

  WriteQueue& queue_;
  StoredJobs& jobs_;
  DiskState& disk_;
  const StateFolder& folder_;
  bool sweeping_ = false;
  bool shrank_ = false;  // since the log was emptied
  bool wiping_ = false;
  bool wipe_again_ = false;
  bool wipe_due_;
  bool noted_;  // the queue's thread's
};

}  // namespace penstock::queue
