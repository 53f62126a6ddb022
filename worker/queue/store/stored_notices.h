// StoredNotices: the table of what the operator's hooks are still to be told. Every function works
// within whatever transaction is open; false says that the database failed.
#pragma once

#include <string>
#include <vector>

#include "worker/queue/store/queries.h"
#include "worker/queue/store/sqlite.h"

namespace penstock::queue {

class StoredNotices {
 public:
  explicit StoredNotices(Database& database);

  // The job has ended: its notices are due, whatever the time, in place of those of an earlier end.
  bool insert(const JobEnd& end);
  // `tries` were made; due again at `due_ms`, or over (0). Nothing happens to one made since.
  bool set(const DueNotice& notice, uint32_t tries, int64_t due_ms);
  bool due(const NoticeQuery& query, NoticePage& page);
  // Drops what others were to be told.
  bool keep(const std::vector<std::string>& hooks);

 private:
  Statement insert_, set_, erase_, due_, next_due_, hooks_, erase_hook_;
};

}  // namespace penstock::queue
