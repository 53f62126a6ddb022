// JobLists: pages of jobs, and the index by which those of one owner that have ended are found.
//
// If such an index were written at each end, it would change in as many places as there are owners.
// So a job that ends is noted in a short list first, which is searched as a whole. From time to
// time all of the list is indexed at once.
//
// Every function works within whatever transaction is open; false says that the database failed.
#pragma once

#include <cstdint>
#include <string_view>

#include "worker/queue/store/queries.h"
#include "worker/queue/store/sqlite.h"

namespace penstock::queue {

class JobLists {
 public:
  // The database outlives this.
  explicit JobLists(Database& database);
  // Before all else.
  Status begin_use(Database& database);

  bool add(int64_t seq);  // it has ended
  bool erase(int64_t seq, std::string_view owner, JobStatus status);
  // Forgets a job, whatever its status.
  bool erase(int64_t seq, std::string_view owner);
  // Before a commit: indexes what has ended, if that is much.
  bool index_if_many();
  // The commit succeeded.
  void note_commit() { unindexed_ = indexed_ ? 0 : unindexed_; }
  // A page of jobs. Few rows are looked at, whatever is asked for.
  bool list(const JobQuery& query, JobPage& page);

 private:
  bool list_ended(const JobQuery& query, JobPage& page);
  static bool take(Statement& rows, const JobQuery& query, JobPage& page);

  Statement insert_recent_, index_recent_, forget_recent_, erase_recent_, erase_ended_, list_all_,
      list_live_, list_dead_, list_recent_, list_ended_;
  uint32_t unindexed_ = 0;  // about so many have ended and are not indexed
  bool indexed_ = false;    // within this transaction, all of them were
};

}  // namespace penstock::queue
