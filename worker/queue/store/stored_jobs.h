// StoredJobs: the jobs on disk, changed in transactions: their rows, the files of their results,
// and the account of what they take.
//
// For the store's thread alone, but for figures() and remove_files(). A change returns false if it
// failed. fault() says why, and whether the change itself is to blame.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/mutex.h"
#include "worker/queue/store/disk_state.h"
#include "worker/queue/store/fault.h"
#include "worker/queue/store/job_tables.h"
#include "worker/queue/store/queries.h"
#include "worker/queue/store/result_files.h"
#include "worker/queue/store/state_account.h"

namespace penstock::queue {

// A job's end, until it is written.
struct Ending {
  JobEnd end;
  uint64_t offset = 0;  // of `rest` in the result
  std::string rest;

  // Makes it the end of a job whose result could not be stored.
  void lose();
};

class StoredJobs {
 public:
  StoredJobs(std::unique_ptr<JobTables> tables, ResultFiles files, DiskState& disk);

  JobTables& tables() { return *tables_; }
  ResultFiles& files() { return files_; }
  const ResultFiles& files() const { return files_; }
  // The sequence of the latest job that was there at the start; 0: there was none.
  uint64_t last_sequence() const { return account_.last_sequence(); }

  // A transaction. One that only reads needs none of the database.
  bool begin(bool writes);
  bool commit(bool writes);  // settles, too
  void roll_back();
  // release() keeps what was done since savepoint(); undo() undoes it.
  bool savepoint();
  bool release() { return tables_->release(); }
  bool undo();
  // The transaction is committed: what was done beside the database holds.
  void settle();
  Fault fault() const;

  // Bounds on everything, and on the jobs of one share (0: no bound of its own).
  struct Bounds {
    uint64_t bytes = 0;
    int64_t share_bytes = 0;
  };
  bool promise(const JobRecord& job, std::string_view submit, const Bounds& bounds,
               PromiseOutcome& outcome);
  // Takes a job back. Nothing happens if it is not there.
  bool take_back(const JobId& id);
  // Adds a job that was never promised, but is to be finished. A spare one takes the place of the
  // one before it; unless it is `needed`, there is none of it where half of all room, or of its
  // share's, is taken.
  bool insert(const JobRecord& job, bool needed, const Bounds& bounds);
  // Some of its result, at that offset.
  bool write_result(const JobId& id, uint64_t offset, std::string_view bytes);
  bool discard_result(const JobId& id);
  // Its notices are kept where less than three quarters of `max_bytes` are taken. `promised`: the
  // ledger is told of it.
  bool finish(Ending& ending, uint64_t max_bytes, bool promised);
  bool requeue(const JobId& id, int64_t deadline_ms, std::string_view trace,
               std::optional<JobRecord>& job);
  bool drop(const JobId& id, bool& dropped);
  // Likewise, and nothing is told of it any more. What was deleted is still to be wiped.
  bool purge(const JobId& id, bool& purged);
  // `more`: others have expired, too; `shrank`: free pages were given back, and there may be more.
  struct Swept {
    bool more = false;
    bool shrank = false;
  };
  bool sweep(int64_t now_ms, const UsageBounds& ledger, Swept& swept);
  // Nothing more of its result is stored.
  void spoil(uint64_t sequence) { spoiled_.insert(sequence); }

  // What was there at the start, some at a time: `more` says whether that was not all.
  bool count_some(bool& more);  // into the account
  // Files that no job tells of are removed. Those of jobs that came since may be told of later.
  bool remove_stray_files(ResultFiles::Round& round);

  // Files that the transaction leaves without a row, once it is on disk.
  std::vector<JobId> take_unwanted_files();
  void remove_files(const std::vector<JobId>& ids);
  // While `keep`, they stay all the same; then they go.
  void keep_files(bool keep);

  struct Figures {
    uint64_t dead, bytes, disk_bytes, usage_rows;
  };
  Figures figures() const {
    return {dead_, bytes_, disk_bytes_, static_cast<uint64_t>(tables_->usage().rows())};
  }

 private:
  // What a transaction changes beside the database and the account.
  struct Changes {
    int64_t dead = 0;
    std::vector<JobId> gone;       // whose result files it leaves without a row
    std::vector<uint64_t> sealed;  // sequences of jobs that write no file any more
  };
  bool note(const Status& of_file);
  bool forget(const JobRecord& job);
  bool has_room_for_spare(uint64_t whose, const JobTables::Charge& had, const Bounds& bounds) const;
  bool replace(const JobRecord& spare, int64_t now_ms);
  void measure();

  std::unique_ptr<JobTables> tables_;
  ResultFiles files_;
  DiskState& disk_;
  StateAccount account_;
  std::set<uint64_t> spoiled_;               // by sequence, as are:
  std::map<uint64_t, uint64_t> open_files_;  // bytes of results that are being written
  Changes changes_;                          // of the transaction
  Changes changes_before_;                   // the savepoint
  StateAccount::Mark mark_;                  // likewise
  struct KeptFiles {
    Mutex mutex;
    bool keep GUARDED_BY(mutex) = false;
    std::vector<JobId> ids GUARDED_BY(mutex);  // to be removed then
  };
  KeptFiles kept_files_;
  std::optional<Error> file_error_;  // of the change that was made last
  std::atomic<uint64_t> dead_{0};
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> disk_bytes_{0};
};

}  // namespace penstock::queue
