// Store: the jobs that were promised, and their results, on disk.
//
// SQLite (https://sqlite.org/wal.html: WAL) in STATE/jobs.db, and results too large for it in
// STATE/results/ID. A thread of its own does all the work, in the order in which it was asked.
// What has gathered meanwhile is one transaction. Another thread flushes the log, for many jobs at
// once, while the next transaction is under way (WriteQueue). Callers are told on their own thread,
// by tell_done(), after the flush. That is as safe as synchronous=FULL, but nobody waits for the
// disk who has something to do.
//
// What holds:
//   - on_done(kStored) comes after the job is on the disk (fdatasync), whatever is killed next.
//   - A promise that cannot be written is refused, and leaves nothing behind. All else (attempts,
//     ends, results) is tried again until it can be written; while the database or the disk fails,
//     health() says what is wrong, and promises are refused.
//   - What fails by itself (its result's file is gone, on a bad block, in the way) fails alone:
//     others go on. After `file_tries` its job ends as failed, and on_lost_result tells of it. A
//     result that is not whole is never served as if it were.
//   - Room on disk is kept for the ends of what was promised (reserve.h). Once the disk is full,
//     they are written into it; promises are made again when it is free again.
//   - A flush that failed is never believed to have succeeded the second time: what it was to write
//     is written again first. A promise that was refused for that may be there after all, if the
//     process ends before it could be taken back.
//   - A job has one end: a second finish() of the same job changes nothing.
//   - Results in files are flushed, and their names with them, before the end that tells of them.
//   - A database that is damaged, or is none, is set aside under another name, said in notices(),
//     and a new one begun; one of a newer schema is an error. All of it is read to find that out
//     only where it was not closed and the machine has started anew since, or where somebody has
//     made a file STATE/unclean.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "shared/base/shared_bytes.h"
#include "worker/queue/store/disk_state.h"
#include "worker/queue/store/job_record.h"
#include "worker/queue/store/queries.h"
#include "worker/queue/store/usage.h"

namespace penstock::queue {

class FileCalls;

class Store {
 public:
  static constexpr size_t kInlineBytes = kInlineResultBytes;

  struct Options {
    std::string folder;                     // made if it is not there, with mode 0750
    std::string group;                      // who may read results besides us; empty: nobody
    int64_t max_bytes = int64_t{16} << 30;  // of everything; past it promises are refused
    int64_t max_share_bytes = 0;            // likewise, of one share's jobs; 0: no bound of its own
    uint64_t reserve_bytes = 0;             // room on disk that is kept for ends
    int64_t retry_ms = 1000;                // after a write that failed
    uint32_t file_tries = 10;               // before what fails by itself is given up
    uint64_t log_bytes = 16U << 20;         // of the database's log, written over again and again
    std::string vfs;             // SQLite's; empty: the default. Tests inject faults by it,
    FileCalls* files = nullptr;  // and by this; nullptr: the system's
    Fd* lock =
        nullptr;  // of the folder, that an earlier life of this process took; it is moved from
  };

  static Result<std::unique_ptr<Store>> open(const Options& options);
  virtual ~Store() = default;  // what was asked is written first

  // What was set aside or repaired at open(), for the log.
  virtual const std::vector<std::string>& notices() const = 0;
  // The secret that owners and keys are hashed under: STATE/secret, made at the first start.
  virtual const limit::Secret& secret() const = 0;
  // Gives every job that has not ended, in order of arrival, then every URL that disable_url()
  // named. Call it once, before all else.
  virtual Status recover(const std::function<void(JobRecord&&)>& job,
                         const std::function<void(const std::string&)>& gone_url) = 0;
  // Gives the jobs that have ended and whose receipt the edge has not settled: up to `most`, the
  // latest first. Call it once, before all else.
  virtual Status unsettled(size_t most, const std::function<void(JobRecord&&)>& each) = 0;
  // What an operator ordered, which holds over a restart.
  virtual Result<Orders> orders() = 0;
  // nothing: it holds no more.
  virtual void set_order(const std::string& name, std::optional<int64_t> value) = 0;
  // The latest id that any job had at open(); ids of new ones must be greater.
  virtual std::optional<JobId> last_id() const = 0;
  // The latest time of day in the record of that job; 0: there was none.
  virtual int64_t newest_ms() const = 0;
  // The result of a job cannot be stored. It has ended as failed, or, if it still runs, its owner
  // is to end it so: whatever comes of it is not stored.
  std::function<void(const JobId&, const std::string& why)> on_lost_result;

  // The lock of its folder, for the next life of this process.
  virtual int lock_fd() const = 0;

  // Readable when somebody can be told.
  virtual int event_fd() const = 0;
  virtual void tell_done() = 0;
  // Bounds everything on disk, and what one share takes of it (0: no bound of its own).
  virtual void set_max_bytes(int64_t bytes, int64_t of_a_share) = 0;
  // How many questions are not answered yet. Callers of this class bound it: they ask no more then.
  virtual size_t pending() const = 0;
  static constexpr size_t kMostPending = 50'000;
  // How many bytes are held in memory until they are on disk.
  virtual size_t pending_bytes() const = 0;

  // `submit` is the SUBMIT frame. kDuplicate: a job of the same `key` is there.
  virtual void promise(JobRecord job, SharedBytes submit,
                       std::function<void(PromiseOutcome)> on_done) = 0;
  // An attempt failed.
  virtual void attempt(const JobId& id, uint32_t attempts, std::string code, std::string error) = 0;
  // Some of the job's result, which will not be small, from `offset` on. 0: the first of this
  // attempt.
  virtual void append_result(const JobId& id, uint64_t offset, std::string bytes) = 0;
  // There will be none after all.
  virtual void discard_result(const JobId& id) = 0;
  // The job is over. `rest` is its result from `offset` on: all of it (0), or what comes behind
  // that of append_result(). Its webhook becomes due. Its body is dropped, unless it is dead.
  // on_done() tells how it has ended: as failed, if its result could not be stored. Its notices
  // are due then, unless it has ended otherwise, or three quarters of the state's room are taken.
  virtual void finish(JobEnd end, uint64_t offset, std::string rest,
                      std::function<void(const JobEnd&)> on_done) = 0;
  // The same for a job that was never promised, but is kept for its key. A spare one takes the
  // place of the spare one before it. Where half of all room, or of its share's, is taken, it is
  // not kept, and the one before stays; unless it is `needed`, as somebody reads it from here.
  virtual void keep(JobRecord job, bool needed, uint64_t offset, std::string rest,
                    std::function<void(const JobEnd&)> on_done) = 0;
  // A dead job is wanted again: it is queued as if new, within that trace. on_done() gets nothing
  // if it is not among the dead.
  virtual void requeue(const JobId& id, int64_t deadline_ms, std::string trace,
                       std::function<void(std::optional<JobRecord>)> on_done) = 0;
  // Forgets a job that has ended.
  virtual void drop(const JobId& id, std::function<void(bool)> on_done) = 0;
  // The same, and nothing is left of it on disk: its body, its result, what it was asked by and
  // what was to be told of it. on_done() comes once it is gone from the database; what free pages
  // and the log still hold of it is wiped a moment later.
  virtual void purge(const JobId& id, std::function<void(bool)> on_done) = 0;
  // Copies all of this to STATE/backup (state_copy.h), while it goes on. One at a time.
  virtual void back_up(std::function<void(Status)> on_done) = 0;
  // Forgets that copy. REQUIRES: back_up() is done.
  virtual void forget_backup() = 0;
  // `tries` were made of the delivery; due again at `due_ms`, or over (0).
  virtual void delivered(const JobId& id, uint32_t tries, int64_t due_ms) = 0;
  virtual void due(const DueQuery& query, std::function<void(DuePage)> on_done) = 0;
  // It wants no webhooks any more. The last kMostGoneUrls are kept.
  virtual void disable_url(std::string url) = 0;
  virtual void due_notices(const NoticeQuery& query, std::function<void(NoticePage)> on_done) = 0;
  // `tries` were made of the notice; due again at `due_ms`, or over (0). Until on_done() it may
  // still be read as it was.
  virtual void noticed(const DueNotice& notice, uint32_t tries, int64_t due_ms,
                       std::function<void()> on_done) = 0;
  // Of a job that has ended otherwise than was asked.
  virtual void notify(const JobEnd& end) = 0;
  // What other hooks were to be told is dropped.
  virtual void keep_hooks(std::vector<std::string> names) = 0;
  // The edge has settled the receipt of that job (sequence_of() its id): it is not told again.
  virtual void settled(uint64_t number) = 0;
  // What was promised of a job that Redis has, by its id. `on_done` tells whether it was written.
  virtual void note_away(std::string id, std::string job, std::function<void(bool)> on_done) = 0;
  virtual void forget_away(std::string id) = 0;
  virtual void find_away(std::string id,
                         std::function<void(std::optional<std::string>)> on_done) = 0;
  // Gives all of them. Call it once, before all else.
  virtual Status away(
      const std::function<void(std::string_view id, std::string_view job)>& each) = 0;
  // Removes all that has expired by `now_ms`, some at a time; asked again meanwhile, it goes on.
  virtual void sweep(int64_t now_ms) = 0;
  // What was made while the clock was more than a day ahead of `now_ms` is kept no longer for that.
  virtual void clamp_expiries(int64_t now_ms) = 0;

  // The SUBMIT frame of a job that has not ended, or is dead.
  virtual void fetch(const JobId& id, std::function<void(Result<std::string>)> on_done) = 0;
  virtual void find(const JobId& id, std::function<void(std::optional<JobRecord>)> on_done) = 0;
  virtual void find_key(const limit::Hash128& key,
                        std::function<void(std::optional<JobRecord>)> on_done) = 0;
  // The newest that has completed of those whose `earlier` is this.
  virtual void find_earlier(const limit::Hash128& earlier,
                            std::function<void(std::optional<KeptAnswer>)> on_done) = 0;
  // A result that is not in a file.
  virtual void read_result(const JobId& id, std::function<void(Result<std::string>)> on_done) = 0;
  // The file of a result that is.
  virtual std::string result_path(const JobId& id) const = 0;
  // A page of jobs. Few rows are looked at, whatever is asked for. With an owner, only jobs that
  // have ended: the caller knows the living.
  virtual void list(const JobQuery& query, std::function<void(JobPage)> on_done) = 0;

  // The ledger. Ends of promised jobs are in it with their end; these are added to it. `mark`: see
  // usage_file.h; usage_mark() is the last at open().
  virtual void add_usage(std::vector<UsageRow> rows, uint64_t mark,
                         std::function<void()> on_done) = 0;
  virtual uint64_t usage_mark() const = 0;
  // The first hour of which an end is yet to be written, and so is not in the ledger; INT64_MAX:
  // none.
  virtual int64_t unwritten_hour() const = 0;
  virtual void usage(const UsageQuery& query, std::function<void(UsagePage)> on_done) = 0;
  virtual void set_usage_bounds(const UsageBounds& bounds) = 0;

  // disk_state.h draws it.
  virtual Disk disk() const = 0;
  // What the last write ran into, or Ok. A write that fails and one that succeeds may both come
  // between two calls. figures().write_errors misses none, and last_fault() names the last.
  virtual Status health() const = 0;
  virtual std::string last_fault() const = 0;
  struct Figures {
    uint64_t commits = 0;
    uint64_t commit_ns = 0;  // in all, flush included
    uint64_t dead = 0;
    uint64_t bytes = 0;       // in use, of max_bytes
    uint64_t disk_bytes = 0;  // that its files take
    uint64_t write_errors = 0;
    uint64_t lost_results = 0;  // see on_lost_result
    uint64_t usage_rows = 0;    // of the ledger, nearly
    uint64_t damaged_rows = 0;  // of jobs, that could not be read
  };
  virtual Figures figures() const = 0;
};

}  // namespace penstock::queue
