#include "worker/queue/store/job_tables.h"

#include <cstdlib>
#include <cstring>

#include "worker/queue/store/schema.h"

namespace penstock::queue {
namespace {

// Free pages are given back when they are so many, and a quarter of all; some at a time.
constexpr int64_t kManyFreePages = 1024;
constexpr int64_t kDayMs = 86'400'000;

}  // namespace

Result<std::unique_ptr<JobTables>> JobTables::open(const Opening& opening,
                                                   std::vector<std::string>& notices) {
  auto database = open_database(opening.path, opening.vfs, opening.check, notices);
  if (!database) {
    return database.error();
  }
  std::unique_ptr<JobTables> tables(new JobTables(*std::move(database)));
  if (Status ready = tables->begin_use(opening.log_bytes); !ready) {
    return Error{opening.path + ": " + ready.error().message};
  }
  return tables;
}

JobTables::JobTables(Database database)
    : database_(std::move(database)),
      lists_(database_),
      deliveries_(database_),
      notices_(database_),
      away_(database_),
      usage_(database_) {
  const auto prepare = [this](Statement& statement, const std::string& sql) {
    statement = Statement(database_, sql);
  };
  prepare(begin_, "BEGIN IMMEDIATE");
  prepare(commit_, "COMMIT");
  prepare(savepoint_, "SAVEPOINT one");
  prepare(release_, "RELEASE one");
  prepare(undo_, "ROLLBACK TO one");
  prepare(shrink_, "PRAGMA incremental_vacuum(256)");
  prepare(page_count_, "PRAGMA page_count");
  prepare(freelist_count_, "PRAGMA freelist_count");
  prepare(insert_,
          "INSERT INTO jobs(seq, id, owner, status, key, digest, queue, model, tier, priority,"
          " weight, cost, jobs_path, callback, receipt, created_ms, not_before_ms, deadline_ms,"
          " attempts, submit, share, label, earlier, paid, trace)"
          " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
  prepare(erase_, "DELETE FROM jobs WHERE seq=?");
  prepare(end_damaged_,
          "UPDATE jobs SET status=4, key=NULL, submit=NULL, dead=0, started_ms=0, finished_ms=?1,"
          " expires_ms=?2, http_status=502, result_bytes=0, result_in_file=0,"
          " owner=CASE WHEN length(owner)=16 THEN owner ELSE zeroblob(16) END,"
          " share=CASE WHEN length(share)=16 THEN share END,"
          " digest=CASE WHEN length(digest)=16 THEN digest ELSE zeroblob(16) END,"
          " error_code=CAST('engine_failed' AS BLOB),"
          " error=CAST('What is kept of the job on disk is damaged.' AS BLOB) WHERE seq=?3");
  prepare(clamp_,
          "UPDATE jobs SET expires_ms=?1+(expires_ms-finished_ms) WHERE seq>?2 AND status>=3"
          " AND finished_ms>?1+?3");
  const std::string charge =
      "SELECT seq, coalesce(share, owner), coalesce(length(submit), 0)+result_bytes+" +
      std::to_string(kRowBytes) + ", result_in_file*result_bytes";
  prepare(charge_of_, charge + " FROM jobs WHERE seq=?");
  prepare(charges_, charge + " FROM jobs WHERE seq>? ORDER BY seq LIMIT ?");
  prepare(erase_notices_, "DELETE FROM notices WHERE seq=?");
  prepare(erase_result_, "DELETE FROM results WHERE seq=?");
  prepare(set_attempt_,
          "UPDATE jobs SET attempts=?, error_code=?, error=? WHERE seq=? AND status<3");
  prepare(unfinished_,
          "SELECT coalesce(share, owner), coalesce(length(submit), 0), result_bytes,"
          " owner, queue, model, paid, length(callback) FROM jobs WHERE seq=? AND status<3");
  // A job that did not complete has used up no key. One that a webhook is to tell of is kept
  // longer, until that is over.
  prepare(finish_,
          "UPDATE jobs SET status=?1, key=CASE WHEN ?1=3 THEN key END, dead=?2, started_ms=?3,"
          " finished_ms=?4, expires_ms=?5+(length(callback)>0)*?17, attempts=?6, http_status=?7,"
          " content_type=?8, error_code=?9, error=?10, prompt_tokens=?11, completion_tokens=?12,"
          " device_ns=?13, result_bytes=?14, result_in_file=?15, headers=?18, estimated=?19,"
          " submit=CASE WHEN ?20=1 THEN submit END WHERE seq=?16 AND status<3");
  prepare(insert_result_, "INSERT OR REPLACE INTO results(seq, body) VALUES(?,?)");
  // What its edge had charged was given back when it failed, and is not charged again.
  prepare(requeue_,
          "UPDATE jobs SET status=1, dead=0, attempts=0, deadline_ms=?, trace=?, not_before_ms=0,"
          " finished_ms=0, started_ms=0, expires_ms=NULL, http_status=0, receipt=x'',"
          " paid=1 WHERE seq=? AND dead=1");
  prepare(set_settled_, "UPDATE jobs SET receipt=x'' WHERE seq=? AND status>=3");
  prepare(set_order_, "INSERT OR REPLACE INTO orders(name, value) VALUES(?, ?)");
  prepare(erase_order_, "DELETE FROM orders WHERE name=?");
  prepare(expired_, select_jobs("FROM jobs WHERE expires_ms<=? ORDER BY expires_ms LIMIT ?"));
  prepare(submit_of_, "SELECT submit FROM jobs WHERE seq=? AND submit IS NOT NULL");
  prepare(result_of_, "SELECT body FROM results WHERE seq=?");
  prepare(retire_,
          "UPDATE jobs SET key=NULL, earlier=NULL, expires_ms=min(expires_ms, ?) WHERE seq=?");
  prepare(find_, select_jobs("FROM jobs WHERE seq=?"));
  prepare(find_key_, select_jobs("FROM jobs WHERE key=?"));
  prepare(find_earlier_,
          select_jobs("FROM jobs INDEXED BY jobs_earlier WHERE earlier=? AND status=3"
                      " ORDER BY seq DESC LIMIT 1"));
}

Status JobTables::begin_use(uint64_t log_bytes) {
  const auto page_bytes = database_.ask("PRAGMA page_size");
  if (!page_bytes) {
    return page_bytes.error();
  }
  page_bytes_ = std::strtoll(page_bytes->c_str(), nullptr, 10);
  count_pages();
  Status ready = lists_.begin_use(database_);
  ready = ready ? log_.open(database_, log_bytes) : ready;
  if (!ready) {
    return ready;
  }
  // What an earlier process has committed may not have come to the disk.
  return log_.rewrite() ? Status(Ok{}) : Error{"its log cannot be flushed"};
}

bool JobTables::begin() { return begin_.with().run(); }
bool JobTables::savepoint() { return usage_.write_ends() && savepoint_.with().run(); }
bool JobTables::release() { return usage_.write_ends() && release_.with().run(); }
bool JobTables::undo() {
  usage_.drop_ends();
  return undo_.with().run() && release();
}
bool JobTables::commit() {
  if (!usage_.write_ends() || !lists_.index_if_many()) {
    return false;
  }
  count_pages();  // here it costs no transaction of its own
  if (!commit_.with().run()) {
    return false;
  }
  lists_.note_commit();
  log_.note_commit();
  return true;
}

void JobTables::count_pages() {
  pages_ = page_count_.with().only_number();
  free_pages_ = freelist_count_.with().only_number();
}

void JobTables::roll_back() {
  usage_.drop_ends();
  if (sqlite3_get_autocommit(database_.get()) == 0) {
    static_cast<void>(database_.execute("ROLLBACK"));
  }
}

bool JobTables::checkpoint() {
  return sqlite3_wal_checkpoint_v2(database_.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr,
                                   nullptr) == SQLITE_OK;
}

Error JobTables::error() const { return database_.error("writing jobs"); }

bool JobTables::insert(const JobRecord& job, std::string_view submit, bool& duplicate) {
  const int64_t seq = seq_of(job.id);
  const limit::Hash128 none;
  insert_.with(seq, job.id.view(), as_bytes(job.owner), static_cast<int>(job.status));
  job.key == none ? insert_.and_with(nullptr) : insert_.and_with(as_bytes(job.key));
  insert_.and_with(as_bytes(job.digest), job.queue, job.model, job.tier, job.priority, job.weight,
                   job.cost, job.jobs_path, job.callback, job.receipt, job.created_ms,
                   job.not_before_ms, job.deadline_ms, job.end.attempts);
  submit.empty() ? insert_.and_with(nullptr) : insert_.and_with(submit);
  job.share == job.owner ? insert_.and_with(nullptr) : insert_.and_with(as_bytes(job.share));
  insert_.and_with(job.label);
  job.earlier == none ? insert_.and_with(nullptr) : insert_.and_with(as_bytes(job.earlier));
  insert_.and_with(job.paid ? 1 : 0);
  insert_.and_with(job.trace);
  if (!insert_.run()) {
    duplicate = (insert_.code() & 0xFF) == SQLITE_CONSTRAINT;
    return duplicate;
  }
  return true;
}

bool JobTables::erase_row(int64_t seq) {
  return erase_.with(seq).run() && erase_result_.with(seq).run() && deliveries_.erase(seq);
}

bool JobTables::erase(const JobRecord& job) {
  const int64_t seq = seq_of(job.id);
  return erase_row(seq) &&
         (!has_ended(job.status) || lists_.erase(seq, as_bytes(job.owner), job.status));
}

bool JobTables::end_damaged(const DamagedRow& row, int64_t now_ms) {
  return end_damaged_.with(now_ms, now_ms + kDayMs, row.seq).run() && lists_.add(row.seq);
}

bool JobTables::erase_damaged(const DamagedRow& row) {
  return erase_row(row.seq) && lists_.erase(row.seq, row.owner);
}

// Ids begin with the time of their making, so only the latest rows are looked at.
bool JobTables::clamp_expiries(int64_t now_ms) {
  constexpr int kCounterBits = 15;  // job_id.h
  return clamp_.with(now_ms, (now_ms + kDayMs) << kCounterBits, kDayMs).run();
}

bool JobTables::shrink(bool& shrank) {
  const int64_t free = freelist_count_.with().only_number();
  shrank = free >= kManyFreePages && free >= page_count_.with().only_number() / 4;
  return !shrank || shrink_.with().run();
}

bool JobTables::vacuum_some(bool& more) {
  const bool good = shrink_.with().run();
  more = good && freelist_count_.with().only_number() > 0;
  return good;
}

bool JobTables::erase_notices(const JobId& id) { return erase_notices_.with(seq_of(id)).run(); }

bool JobTables::charge_of(const JobId& id, Charge& charge) {
  charge_of_.with(seq_of(id));
  if (charge_of_.step()) {
    limit::Hash128 whose;
    read_hash(charge_of_.bytes(1), whose);
    charge = {sequence_of(id), whose.lo, charge_of_.number(2), charge_of_.number(3)};
  }
  const bool good = !charge_of_.failed();
  charge_of_.reset();
  return good;
}

bool JobTables::charges(uint64_t after, uint32_t most, std::vector<Charge>& charges) {
  charges_.with(after, most);
  while (charges_.step()) {
    limit::Hash128 whose;
    read_hash(charges_.bytes(1), whose);
    charges.push_back({static_cast<uint64_t>(charges_.number(0)), whose.lo, charges_.number(2),
                       charges_.number(3)});
  }
  const bool good = !charges_.failed();
  charges_.reset();
  return good;
}

bool JobTables::set_attempt(const JobId& id, uint32_t attempts, std::string_view code,
                            std::string_view error) {
  return set_attempt_.with(attempts, code, error, seq_of(id)).run();
}

bool JobTables::finish(const JobEnd& end, std::string_view result, uint64_t result_bytes,
                       bool in_file, std::optional<Finished>& finished) {
  const int64_t seq = seq_of(end.id);
  const bool keeps_body = end.dead || end.keep_body;
  bool calls_back = false;
  if (unfinished_.with(seq).step()) {
    const auto kept = static_cast<int64_t>(result_bytes);
    limit::Hash128 whose;
    limit::Hash128 owner;
    read_hash(unfinished_.bytes(0), whose);
    read_hash(unfinished_.bytes(3), owner);
    finished = {{.seq = sequence_of(end.id),
                 .whose = whose.lo,
                 .bytes = kept - unfinished_.number(2) - (keeps_body ? 0 : unfinished_.number(1)),
                 .file_bytes = in_file ? kept : 0},
                {end.finished_ms / kHourMs, owner.lo, std::string(unfinished_.bytes(4)),
                 std::string(unfinished_.bytes(5))},
                unfinished_.number(6) != 0};
    calls_back = unfinished_.number(7) > 0;
  }
  const bool read = !unfinished_.failed();
  unfinished_.reset();
  if (!read || !finished) {
    return read;
  }
  return finish_
             .with(static_cast<int>(end.status), end.dead ? 1 : 0, end.started_ms, end.finished_ms,
                   end.expires_ms, end.attempts, int{end.http_status}, end.content_type,
                   end.error_code, end.error, end.prompt_tokens, end.completion_tokens,
                   end.device_ns, result_bytes, in_file ? 1 : 0, seq, kDeliveryMs, end.headers,
                   end.estimated ? 1 : 0, keeps_body ? 1 : 0)
             .run() &&
         (result.empty() || in_file || insert_result_.with(seq, result).run()) && lists_.add(seq) &&
         (!calls_back || deliveries_.insert(seq, end.finished_ms));
}

bool JobTables::requeue(const JobId& id, int64_t deadline_ms, std::string_view trace,
                        std::optional<JobRecord>& job) {
  if (!requeue_.with(deadline_ms, trace, seq_of(id)).run()) {
    return false;
  }
  if (database_.changes() == 0) {
    return true;
  }
  const int64_t seq = seq_of(id);
  return deliveries_.erase(seq) && find(id, job) &&
         (!job || lists_.erase(seq, as_bytes(job->owner), JobStatus::kFailed));
}

bool JobTables::retire(const JobId& id, int64_t expires_ms) {
  return retire_.with(expires_ms, seq_of(id)).run();
}

bool JobTables::find(const JobId& id, std::optional<JobRecord>& job) {
  const bool good = read_one(find_.with(seq_of(id)), job);
  if (job && !(job->id == id)) {
    job.reset();  // a guess of the rest of it
  }
  return good;
}

bool JobTables::find_key(const limit::Hash128& key, std::optional<JobRecord>& job) {
  return read_one(find_key_.with(as_bytes(key)), job);
}

namespace {

bool read_blob(Statement& statement, std::optional<std::string>& blob) {
  if (statement.step()) {
    blob = std::string(statement.bytes(0));
  }
  const bool good = !statement.failed();
  statement.reset();
  return good;
}

}  // namespace

bool JobTables::submit_of(const JobId& id, std::optional<std::string>& submit) {
  return read_blob(submit_of_.with(seq_of(id)), submit);
}

bool JobTables::result_of(const JobId& id, std::optional<std::string>& result) {
  return read_blob(result_of_.with(seq_of(id)), result);
}

bool JobTables::find_earlier(const limit::Hash128& earlier, std::optional<KeptAnswer>& kept) {
  std::optional<JobRecord> job;
  std::optional<std::string> body;
  if (!read_one(find_earlier_.with(as_bytes(earlier)), job) ||
      (job && !job->result_in_file && !result_of(job->id, body))) {
    return false;
  }
  if (job && (job->result_in_file || body || job->result_bytes == 0)) {
    kept = KeptAnswer{*std::move(job), std::move(body).value_or("")};
  }
  return true;
}

bool JobTables::expired(int64_t now_ms, uint32_t most, std::vector<JobRecord>& jobs,
                        std::vector<DamagedRow>& damaged) {
  expired_.with(now_ms, most);
  while (expired_.step()) {
    if (JobRecord job; read_row(expired_, job)) {
      jobs.push_back(std::move(job));
    } else {
      damaged.push_back(read_damaged(expired_));
    }
  }
  const bool good = !expired_.failed();
  expired_.reset();
  return good;
}

bool JobTables::unfinished(const std::function<void(JobRecord&&)>& each,
                           std::vector<DamagedRow>& damaged) {
  Statement all(database_, select_jobs("FROM jobs INDEXED BY jobs_live"
                                       " WHERE expires_ms IS NULL ORDER BY seq"));
  while (all.step()) {
    if (JobRecord job; read_row(all, job) && !has_ended(job.status)) {
      each(std::move(job));
    } else {
      damaged.push_back(read_damaged(all));
    }
  }
  return !all.failed();
}

bool JobTables::set_settled(uint64_t number) {
  return set_settled_.with(static_cast<int64_t>(number)).run();
}

bool JobTables::unsettled(size_t most, const std::function<void(JobRecord&&)>& each) {
  Statement all(
      database_,
      select_jobs("FROM jobs WHERE status>=3 AND receipt<>x'' ORDER BY seq DESC LIMIT ?"));
  for (all.with(static_cast<int64_t>(most)); all.step();) {
    if (JobRecord job; read_row(all, job)) {
      each(std::move(job));
    }
  }
  return !all.failed();
}

bool JobTables::set_order(const std::string& name, std::optional<int64_t> value) {
  return value ? set_order_.with(name, *value).run() : erase_order_.with(name).run();
}

bool JobTables::orders(Orders& orders) {
  Statement all(database_, "SELECT name, value FROM orders");
  while (all.step()) {
    orders[std::string(all.bytes(0))] = all.number(1);
  }
  return !all.failed();
}

std::optional<JobId> JobTables::last_id() {
  const auto id = database_.ask("SELECT id FROM jobs ORDER BY seq DESC LIMIT 1");
  return id ? parse_job_id(*id) : std::nullopt;
}

bool JobTables::has_result_file(const JobId& id) {
  std::optional<JobRecord> job;
  return !find(id, job) || (job && job->result_in_file);  // what cannot be read may have one
}

uint64_t JobTables::count_dead() {
  Statement count(database_, "SELECT count(*) FROM jobs WHERE dead=1");
  return count.step() ? static_cast<uint64_t>(count.number(0)) : 0;
}

int64_t JobTables::newest_ms() {
  const auto newest =
      database_.ask("SELECT max(created_ms, finished_ms) FROM jobs ORDER BY seq DESC LIMIT 1");
  return newest ? std::strtoll(newest->c_str(), nullptr, 10) : 0;
}

}  // namespace penstock::queue
