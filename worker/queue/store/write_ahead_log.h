// WriteAheadLog: SQLite's log beside the database (https://sqlite.org/wal.html), as far as we see
// to it ourselves: its length, its flushes, and what is done after one that failed.
//
// The log is given its full length before it is used, and keeps it: a flush then writes pages, and
// not the file's size and place on disk as well. What lies behind the log's end is not looked at.
#pragma once

#include <cstdint>
#include <string>

#include "worker/queue/store/sqlite.h"

namespace penstock::queue {

class WriteAheadLog {
 public:
  WriteAheadLog() = default;
  WriteAheadLog(const WriteAheadLog&) = delete;
  WriteAheadLog& operator=(const WriteAheadLog&) = delete;

  // Opens the log of this database, which outlives it, and makes it at least `bytes` long.
  Status open(Database& database, uint64_t bytes);
  // Moves all of it into the database, and leaves nothing of it in the file, which has its first
  // length again. REQUIRES: all of it is on disk.
  bool empty(Database& database);
  // A transaction was committed, and nothing has been written since.
  void note_commit();
  // Flushes what was committed so far. Any thread may call it, whatever else is done meanwhile.
  bool flush();
  // The same after a flush that failed: another flush would say nothing of what the first has
  // dropped, so the log is overwritten with what it holds. False also if it does not hold all any
  // more.
  bool rewrite();

  uint64_t pages() const { return pages_; }  // in use, at the last commit
  int64_t bytes() const { return bytes_; }   // on disk

 private:
  bool extend(uint64_t bytes);
  size_t frame_at(uint64_t page) const;
  int read(std::string& bytes, size_t at);
  bool write(const std::string& bytes, size_t at);

  sqlite3_file* file_ = nullptr;
  uint64_t first_bytes_ = 0;
  int64_t bytes_ = 0;
  int64_t page_bytes_ = 0;
  uint64_t pages_ = 0;
  std::string last_sums_;  // of the last frame
};

}  // namespace penstock::queue
