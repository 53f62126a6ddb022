// StateCopy: STATE as it is at one moment, copied to STATE/backup while it is used.
//
//   backup/jobs.db   the database, some pages at a time (https://sqlite.org/backup.html). What is
//                    written meanwhile goes into the copy, too
//   backup/results/  the results it tells of: the same files, by another name (hard links)
//   backup/secret    likewise
//
// For the store's thread alone, outside of transactions. Files of results stay until it is whole:
// see StoredJobs::keep_files().
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "shared/base/result.h"
#include "worker/queue/store/sqlite.h"

namespace penstock::queue {

class StateCopy {
 public:
  // In `state`, in place of a copy that is there. `from` outlives this. An Error: the disk has no
  // room for it beside `reserve_bytes`, or fails.
  static Result<std::unique_ptr<StateCopy>> begin(Database& from, const std::string& state,
                                                  uint64_t reserve_bytes);
  static std::string folder_of(const std::string& state) { return state + "/backup"; }
  // Forgets the copy in `state`, if there is one.
  static void remove(const std::string& state);
  ~StateCopy() = default;

  // Goes on for a moment. False: it is whole. An Error: it comes to nothing.
  Result<bool> step();

 private:
  struct Finish {
    void operator()(sqlite3_backup* backup) const { sqlite3_backup_finish(backup); }
  };
  StateCopy(std::string state, Database to) : state_(std::move(state)), to_(std::move(to)) {}
  Result<bool> copy_pages();
  Result<bool> link_results();

  std::string state_;
  Database to_;
  std::unique_ptr<sqlite3_backup, Finish> pages_;  // nullptr: all are copied
  int64_t linked_up_to_ = 0;                       // by sequence
};

}  // namespace penstock::queue
