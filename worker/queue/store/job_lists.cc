#include "worker/queue/store/job_lists.h"

#include <cstdlib>
#include <utility>

#include "worker/queue/store/job_row.h"

namespace penstock::queue {
namespace {

// So many jobs end before they are indexed.
constexpr uint32_t kIndexedAtOnce = 512;
// So many rows are looked at for one page of a list.
constexpr uint32_t kMostLooked = 2000;

}  // namespace

JobLists::JobLists(Database& database)
    : insert_recent_(database, "INSERT OR IGNORE INTO recently_ended(job) VALUES(?)"),
      index_recent_(database,
                    "INSERT OR IGNORE INTO ended SELECT owner, status, seq FROM recently_ended"
                    " CROSS JOIN jobs ON seq=job WHERE status>=3"),
      forget_recent_(database, "DELETE FROM recently_ended"),
      erase_recent_(database, "DELETE FROM recently_ended WHERE job=?"),
      erase_ended_(database, "DELETE FROM ended WHERE whose=? AND how=? AND job=?"),
      list_all_(database, select_jobs("FROM jobs WHERE seq<?1 ORDER BY seq DESC")),
      list_live_(database, select_jobs("FROM jobs INDEXED BY jobs_live WHERE expires_ms IS NULL"
                                       " AND seq<?1 ORDER BY seq DESC")),
      list_dead_(database, select_jobs("FROM jobs INDEXED BY jobs_dead WHERE dead=1 AND seq<?1"
                                       " ORDER BY seq DESC")),
      list_recent_(database, select_jobs("FROM recently_ended CROSS JOIN jobs ON seq=job"
                                         " WHERE job<?1 AND owner=?2 ORDER BY job DESC")),
      list_ended_(database,
                  select_jobs("FROM ended CROSS JOIN jobs ON seq=job"
                              " WHERE job<?1 AND whose=?2 AND how=?3 ORDER BY job DESC")) {}

Status JobLists::begin_use(Database& database) {
  const auto count = database.ask("SELECT count(*) FROM recently_ended");
  if (!count) {
    return count.error();
  }
  unindexed_ = static_cast<uint32_t>(std::strtoul(count->c_str(), nullptr, 10));
  return Ok{};
}

bool JobLists::add(int64_t seq) {
  ++unindexed_;
  return insert_recent_.with(seq).run();
}

bool JobLists::erase(int64_t seq, std::string_view owner, JobStatus status) {
  return erase_recent_.with(seq).run() &&
         erase_ended_.with(owner, static_cast<int>(status), seq).run();
}

bool JobLists::erase(int64_t seq, std::string_view owner) {
  bool good = erase_recent_.with(seq).run();
  for (int how = static_cast<int>(JobStatus::kCompleted);
       good && how <= static_cast<int>(JobStatus::kExpired); ++how) {
    good = erase_ended_.with(owner, how, seq).run();
  }
  return good;
}

bool JobLists::index_if_many() {
  indexed_ = unindexed_ >= kIndexedAtOnce;
  return !indexed_ || (index_recent_.with().run() && forget_recent_.with().run());
}

// The rows of one statement, newest first, down to where enough of them fit or have been looked at.
bool JobLists::take(Statement& rows, const JobQuery& query, JobPage& page) {
  uint32_t looked = 0;
  uint32_t taken = 0;
  std::optional<JobId> last;
  while (rows.step()) {
    if (taken == query.limit || looked == kMostLooked) {
      page.cut(last);
      break;
    }
    ++looked;
    JobRecord job;
    if (!read_row(rows, job)) {
      continue;
    }
    last = job.id;
    if ((query.statuses >> static_cast<uint32_t>(job.status) & 1) != 0 &&
        (query.queue.empty() || job.queue == query.queue)) {
      page.jobs.push_back(std::move(job));
      ++taken;
    }
  }
  const bool good = !rows.failed();
  rows.reset();
  return good;
}

bool JobLists::list(const JobQuery& query, JobPage& page) {
  constexpr uint32_t kLive = (1U << static_cast<uint32_t>(JobStatus::kCompleted)) - 1;
  const int64_t before = query.before ? seq_of(*query.before) : INT64_MAX;
  if (query.owner && !query.dead) {
    return list_ended(query, page);
  }
  Statement& rows = query.dead                       ? list_dead_
                    : (query.statuses & ~kLive) == 0 ? list_live_
                                                     : list_all_;
  return take(rows.with(before), query, page);
}

// By each of the statuses that are asked for, put together.
bool JobLists::list_ended(const JobQuery& query, JobPage& page) {
  const int64_t before = query.before ? seq_of(*query.before) : INT64_MAX;
  const std::string_view owner = as_bytes(*query.owner);
  bool good = take(list_recent_.with(before, owner), query, page);
  for (int how = static_cast<int>(JobStatus::kCompleted);
       good && how <= static_cast<int>(JobStatus::kExpired); ++how) {
    if ((query.statuses >> how & 1) != 0) {
      good = take(list_ended_.with(before, owner, how), query, page);
    }
  }
  page.put_in_order(query.limit);
  return good;
}

}  // namespace penstock::queue
