#include "worker/queue/store/deliveries.h"

#include <cstring>

#include "worker/queue/store/job_row.h"

namespace penstock::queue {
namespace {

std::string select(const char* where) {
  return std::string("SELECT id, whose, tries, due_ms FROM deliveries ") + where;
}

}  // namespace

Deliveries::Deliveries(Database& database)
    : database_(database),
      insert_(database,
              "INSERT OR IGNORE INTO deliveries(seq, id, tries, due_ms, whose)"
              " SELECT seq, id, 0, ?, substr(coalesce(share, owner), 1, 8) FROM jobs WHERE seq=?"
              " AND length(callback)>0"),
      erase_(database, "DELETE FROM deliveries WHERE seq=?"),
      set_(database, "UPDATE deliveries SET tries=?, due_ms=? WHERE seq=?"),
      keep_no_longer_(database, "UPDATE jobs SET expires_ms=expires_ms-? WHERE seq=?"),
      due_(database,
           select("WHERE (due_ms, seq)>(?1, ?2) AND due_ms<=?3 ORDER BY due_ms, seq LIMIT ?4")),
      due_of_owner_(database, select("WHERE whose=? AND due_ms<=? ORDER BY due_ms LIMIT ?")),
      next_due_(database, "SELECT coalesce(min(due_ms), 0) FROM deliveries WHERE due_ms>?"),
      count_(database, "SELECT count(*) FROM deliveries"),
      insert_gone_url_(database, "INSERT OR IGNORE INTO gone_urls(url) VALUES(?)"),
      forget_gone_urls_(database,
                        "DELETE FROM gone_urls WHERE n<=(SELECT max(n) FROM gone_urls)-?") {}

bool Deliveries::insert(int64_t seq, int64_t due_ms) { return insert_.with(due_ms, seq).run(); }
bool Deliveries::erase(int64_t seq) { return erase_.with(seq).run(); }

bool Deliveries::set(const JobId& id, uint32_t tries, int64_t due_ms) {
  const int64_t seq = seq_of(id);
  if (due_ms != 0) {
    return set_.with(tries, due_ms, seq).run();
  }
  return erase(seq) && (database_.changes() == 0 || keep_no_longer_.with(kDeliveryMs, seq).run());
}

bool Deliveries::due(const DueQuery& query, DuePage& page) {
  Statement& rows = query.owner ? due_of_owner_ : due_;
  if (query.owner) {
    const std::string_view whose(reinterpret_cast<const char*>(&*query.owner), sizeof *query.owner);
    rows.with(whose, query.until_ms, query.limit);
  } else {
    rows.with(query.after_ms, query.after_sequence, query.until_ms, query.limit);
  }
  while (rows.step()) {
    const auto id = parse_job_id(rows.bytes(0));
    uint64_t owner = 0;
    if (id && rows.bytes(1).size() == sizeof owner) {
      std::memcpy(&owner, rows.bytes(1).data(), sizeof owner);
      page.due.push_back({*id, owner, static_cast<uint32_t>(rows.number(2)), rows.number(3)});
    }
  }
  const bool good = !rows.failed();
  rows.reset();
  if (page.due.size() < query.limit) {
    page.next_ms = next_due_.with(query.until_ms).only_number();
    page.all = static_cast<uint64_t>(count_.with().only_number());
  }
  return good;
}

bool Deliveries::disable_url(std::string_view url) {
  return insert_gone_url_.with(url).run() && forget_gone_urls_.with(kMostGoneUrls).run();
}

bool Deliveries::gone_urls(std::vector<std::string>& urls) {
  Statement all(database_, "SELECT url FROM gone_urls ORDER BY n");
  while (all.step()) {
    urls.emplace_back(all.bytes(0));
  }
  return !all.failed();
}

}  // namespace penstock::queue
