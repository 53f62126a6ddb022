#include "worker/queue/store/stored_notices.h"

#include <algorithm>

#include "worker/queue/store/job_row.h"

namespace penstock::queue {

StoredNotices::StoredNotices(Database& database)
    : insert_(database,
              "INSERT OR REPLACE INTO notices(hook, seq, id, made_ms, tries, due_ms, fields, json)"
              " VALUES(?,?,?,?,0,0,?,?)"),
      set_(database, "UPDATE notices SET tries=?, due_ms=? WHERE hook=? AND seq=? AND made_ms=?"),
      erase_(database, "DELETE FROM notices WHERE hook=? AND seq=? AND made_ms=?"),
      due_(database,
           "SELECT id, made_ms, tries, fields, json FROM notices INDEXED BY notices_due"
           " WHERE hook=? AND due_ms<=? ORDER BY due_ms LIMIT ?"),
      next_due_(database, "SELECT coalesce(min(due_ms), 0) FROM notices WHERE hook=? AND due_ms>?"),
      hooks_(database, "SELECT DISTINCT hook FROM notices"),
      erase_hook_(database, "DELETE FROM notices WHERE hook=?") {}

bool StoredNotices::insert(const JobEnd& end) {
  return std::all_of(end.notices.begin(), end.notices.end(), [&](const Notice& each) {
    return insert_
        .with(each.hook, seq_of(end.id), end.id.view(), end.finished_ms, each.fields, each.json)
        .run();
  });
}

bool StoredNotices::set(const DueNotice& notice, uint32_t tries, int64_t due_ms) {
  const int64_t seq = seq_of(notice.id);
  return due_ms == 0 ? erase_.with(notice.hook, seq, notice.made_ms).run()
                     : set_.with(tries, due_ms, notice.hook, seq, notice.made_ms).run();
}

bool StoredNotices::due(const NoticeQuery& query, NoticePage& page) {
  due_.with(query.hook, query.until_ms, query.limit);
  while (due_.step()) {
    if (const auto id = parse_job_id(due_.bytes(0))) {
      page.due.push_back({*id, query.hook, due_.number(1), static_cast<uint32_t>(due_.number(2)),
                          std::string(due_.bytes(3)), std::string(due_.bytes(4))});
    }
  }
  const bool good = !due_.failed();
  due_.reset();
  page.next_ms = next_due_.with(query.hook, query.until_ms).only_number();
  return good;
}

bool StoredNotices::keep(const std::vector<std::string>& hooks) {
  std::vector<std::string> gone;
  hooks_.with();
  while (hooks_.step()) {
    const std::string name(hooks_.bytes(0));
    if (std::find(hooks.begin(), hooks.end(), name) == hooks.end()) {
      gone.push_back(name);
    }
  }
  const bool good = !hooks_.failed();
  hooks_.reset();
  return good && std::all_of(gone.begin(), gone.end(),
                             [&](const std::string& name) { return erase_hook_.with(name).run(); });
}

}  // namespace penstock::queue
