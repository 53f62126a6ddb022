// StoredUsage: the ledger's table (usage.h). Every function works within whatever transaction is
// open; false says that the database failed.
//
// Ends are gathered, for most of a transaction are of a few rows: whoever commits writes them
// first.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <vector>

#include "worker/queue/store/sqlite.h"
#include "worker/queue/store/usage.h"

namespace penstock::queue {

class StoredUsage {
 public:
  explicit StoredUsage(Database& database);

  // Adds to the row of that key.
  bool add(const UsageRow& row);
  // All of them, and that entries of the usage file (usage_file.h) below `mark` are in the ledger.
  bool add(const std::vector<UsageRow>& rows, uint64_t mark);
  uint64_t mark() { return static_cast<uint64_t>(mark_.with().only_number()); }
  // A promised job has ended.
  void add_end(const UsageKey& key, const UsageCounts& counts) { ends_[key] += counts; }
  bool write_ends();
  // The transaction is undone.
  void drop_ends() { ends_.clear(); }
  bool read(const UsageQuery& query, UsagePage& page);
  // How many there are, nearly. Any thread may ask.
  int64_t rows() const { return shown_rows_; }
  // Drops the oldest hour if it began before `hour`, or there are more rows than `most`.
  bool prune(int64_t hour, int64_t most);

 private:
  Database& database_;
  Statement update_, insert_, read_, count_, oldest_, erase_, set_mark_, mark_;
  std::atomic<int64_t> shown_rows_{0};
  std::map<UsageKey, UsageCounts> ends_;  // that are not written yet
  int64_t rows_ = 0;                      // or fewer: they are counted when they seem too many
};

}  // namespace penstock::queue
