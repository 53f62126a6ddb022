// JobTables: the database's tables, and what is done to them, one statement or few each.
//
// A job's row is keyed by sequence_of(its id): later jobs are appended behind, and no index is
// needed to find one. Its body and its small result are rows of tables of their own, so that
// dropping one does not rewrite the job.
//
// Every function works within the transaction that is open, if any. False: the database failed, and
// error() says why. What is read back may be hostile: a row that cannot be parsed is passed over
// and counted (DamagedRow).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/queue/store/deliveries.h"
#include "worker/queue/store/job_lists.h"
#include "worker/queue/store/job_record.h"
#include "worker/queue/store/job_row.h"
#include "worker/queue/store/queries.h"
#include "worker/queue/store/sqlite.h"
#include "worker/queue/store/stored_away.h"
#include "worker/queue/store/stored_notices.h"
#include "worker/queue/store/stored_usage.h"
#include "worker/queue/store/write_ahead_log.h"

namespace penstock::queue {

class JobTables {
 public:
  struct Opening {
    std::string path;
    std::string vfs;         // SQLite's; empty: the default
    uint64_t log_bytes = 0;  // the log has from the beginning
    bool check = false;      // every page is read
  };
  // Opens, checks and migrates. A file that is damaged is set aside, and said in `notices`.
  static Result<std::unique_ptr<JobTables>> open(const Opening& opening,
                                                 std::vector<std::string>& notices);

  bool begin();
  bool commit();
  void roll_back();
  // Within a transaction: release() keeps what was done since savepoint(); undo() undoes it.
  bool savepoint();
  bool release();
  bool undo();
  // Moves what the log has into the database.
  bool checkpoint();
  WriteAheadLog& log() { return log_; }
  JobLists& lists() { return lists_; }
  Deliveries& deliveries() { return deliveries_; }
  StoredNotices& notices() { return notices_; }
  StoredAway& away() { return away_; }
  StoredUsage& usage() { return usage_; }

  // What a job takes of the state: its row, its body and its result.
  static constexpr int64_t kRowBytes = 512;
  struct Charge {
    uint64_t seq = 0;
    uint64_t whose = 0;
    int64_t bytes = 0;
    int64_t file_bytes = 0;  // of these, in a file
  };
  // `duplicate`: a job of that key is there, and nothing was done.
  bool insert(const JobRecord& job, std::string_view submit, bool& duplicate);
  bool erase(const JobRecord& job);
  bool set_attempt(const JobId& id, uint32_t attempts, std::string_view code,
                   std::string_view error);
  // What its end changes; nothing if there is no such job, or it had ended before.
  struct Finished {
    Charge more;    // than it took
    UsageKey used;  // whose ledger it is in
    bool paid = false;
  };
  bool finish(const JobEnd& end, std::string_view result, uint64_t result_bytes, bool in_file,
              std::optional<Finished>& finished);
  bool requeue(const JobId& id, int64_t deadline_ms, std::string_view trace,
               std::optional<JobRecord>& job);
  // Another takes its place: nobody finds it by its key any more, and it expires by then.
  bool retire(const JobId& id, int64_t expires_ms);
  // Up to `most` of those that had expired by then.
  bool expired(int64_t now_ms, uint32_t most, std::vector<JobRecord>& jobs,
               std::vector<DamagedRow>& damaged);
  // A damaged job has failed. What can be read of it is kept for those who ask, and the rest is put
  // in order.
  bool end_damaged(const DamagedRow& row, int64_t now_ms);
  bool erase_damaged(const DamagedRow& row);
  // What was made while the clock was wrong is not kept for ever: a job that ended more than a day
  // after `now_ms` expires as if it had ended now.
  bool clamp_expiries(int64_t now_ms);
  // Gives some of the free pages back, if there are many; `shrank`: there were. The file is shorter
  // once the log is emptied.
  bool shrink(bool& shrank);
  // The same, however few; `more`: some are left.
  bool vacuum_some(bool& more);
  // Moves the log into the database, and leaves nothing of it.
  bool empty_log() { return log_.empty(database_); }
  // What hooks were to be told of it.
  bool erase_notices(const JobId& id);

  // What one job takes; `bytes` is 0 if there is no such job.
  bool charge_of(const JobId& id, Charge& charge);
  // What each of up to `most` jobs behind sequence `after` takes.
  bool charges(uint64_t after, uint32_t most, std::vector<Charge>& charges);

  bool submit_of(const JobId& id, std::optional<std::string>& submit);
  bool result_of(const JobId& id, std::optional<std::string>& result);
  bool find(const JobId& id, std::optional<JobRecord>& job);
  bool find_key(const limit::Hash128& key, std::optional<JobRecord>& job);
  bool find_earlier(const limit::Hash128& earlier, std::optional<KeptAnswer>& kept);
  bool unfinished(const std::function<void(JobRecord&&)>& each, std::vector<DamagedRow>& damaged);
  bool set_settled(uint64_t number);
  // The latest `most` of those that have ended, whose receipt is not settled.
  bool unsettled(size_t most, const std::function<void(JobRecord&&)>& each);
  bool set_order(const std::string& name, std::optional<int64_t> value);
  bool orders(Orders& orders);
  std::optional<JobId> last_id();
  bool has_result_file(const JobId& id);
  uint64_t count_dead();
  // The latest time of day that the latest job tells of; 0: there is none.
  int64_t newest_ms();

  Database& database() { return database_; }
  // At the last commit: in use; on disk, the log as well.
  uint64_t bytes() const { return static_cast<uint64_t>(page_bytes_ * (pages_ - free_pages_)); }
  uint64_t disk_bytes() const { return static_cast<uint64_t>(page_bytes_ * pages_ + log_.bytes()); }
  // What the last function that returned false ran into.
  Error error() const;

 private:
  explicit JobTables(Database database);
  Status begin_use(uint64_t log_bytes);
  bool erase_row(int64_t seq);
  void count_pages();

  Database database_;
  JobLists lists_;
  Deliveries deliveries_;
  StoredNotices notices_;
  StoredAway away_;
  StoredUsage usage_;
  WriteAheadLog log_;
  int64_t page_bytes_ = 0;
  int64_t pages_ = 0;
  int64_t free_pages_ = 0;
  Statement begin_, commit_, savepoint_, release_, undo_, page_count_, freelist_count_, shrink_,
      insert_, erase_, end_damaged_, clamp_, charge_of_, charges_, erase_result_, set_attempt_,
      unfinished_, finish_, insert_result_, requeue_, expired_, submit_of_, result_of_, find_,
      find_key_, find_earlier_, set_settled_, set_order_, erase_order_, retire_, erase_notices_;
};

}  // namespace penstock::queue
