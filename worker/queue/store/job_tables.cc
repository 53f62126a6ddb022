#include "worker/queue/store/job_tables.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "shared/base/fd.h"

namespace penstock::queue {
namespace {

constexpr int kApplicationId = 0x50454E53;  // "PENS"
constexpr int kSchemaVersion = 3;
// So many jobs end before they are indexed.
constexpr uint32_t kIndexedAtOnce = 512;
// So many rows are looked at for one page of a list.
constexpr uint32_t kMostLooked = 2000;
// Free pages are given back when they are so many, and a quarter of all; some at a time.
constexpr int64_t kManyFreePages = 1024;
constexpr int64_t kDayMs = 86'400'000;
constexpr int kSeqColumn = 32;

// From version N to N + 1. Never edited once released: more are appended.
constexpr const char* kMigrations[kSchemaVersion] = {
    "CREATE TABLE jobs(seq INTEGER PRIMARY KEY, id BLOB NOT NULL, owner BLOB NOT NULL,"
    "  status INTEGER NOT NULL, key BLOB, digest BLOB NOT NULL, queue BLOB NOT NULL,"
    "  model BLOB NOT NULL, tier BLOB NOT NULL, priority INTEGER NOT NULL, weight INTEGER NOT NULL,"
    "  cost INTEGER NOT NULL, jobs_path BLOB NOT NULL, callback BLOB NOT NULL,"
    "  receipt BLOB NOT NULL, created_ms INTEGER NOT NULL, not_before_ms INTEGER NOT NULL,"
    "  deadline_ms INTEGER NOT NULL, attempts INTEGER NOT NULL, dead INTEGER NOT NULL DEFAULT 0,"
    "  started_ms INTEGER NOT NULL DEFAULT 0, finished_ms INTEGER NOT NULL DEFAULT 0,"
    "  expires_ms INTEGER, http_status INTEGER NOT NULL DEFAULT 0,"
    "  content_type BLOB NOT NULL DEFAULT x'', error_code BLOB NOT NULL DEFAULT x'',"
    "  error BLOB NOT NULL DEFAULT x'', prompt_tokens INTEGER NOT NULL DEFAULT 0,"
    "  completion_tokens INTEGER NOT NULL DEFAULT 0, device_ns INTEGER NOT NULL DEFAULT 0,"
    "  result_bytes INTEGER NOT NULL DEFAULT 0, result_in_file INTEGER NOT NULL DEFAULT 0,"
    "  submit BLOB);"
    "CREATE INDEX jobs_owner ON jobs(owner);"
    "CREATE UNIQUE INDEX jobs_key ON jobs(key) WHERE key IS NOT NULL;"
    "CREATE INDEX jobs_expire ON jobs(expires_ms) WHERE expires_ms IS NOT NULL;"
    "CREATE INDEX jobs_dead ON jobs(seq) WHERE dead = 1;"
    "CREATE TABLE results(seq INTEGER PRIMARY KEY, body BLOB NOT NULL);"
    "CREATE TABLE deliveries(seq INTEGER PRIMARY KEY, id BLOB NOT NULL, tries INTEGER NOT NULL,"
    "  due_ms INTEGER NOT NULL);",
    // Each owner's jobs, of all jobs up to that one; see index_owners().
    "CREATE TABLE owned(whose BLOB NOT NULL, job INTEGER NOT NULL, PRIMARY KEY(whose, job))"
    "  WITHOUT ROWID;"
    "CREATE TABLE owned_up_to(job INTEGER NOT NULL);"
    "INSERT INTO owned SELECT owner, seq FROM jobs ORDER BY owner, seq;"
    "INSERT INTO owned_up_to SELECT coalesce(max(seq), 0) FROM jobs;"
    "DROP INDEX jobs_owner;",
    // Whose share a job takes; NULL: the owner's.
    "ALTER TABLE jobs ADD COLUMN share BLOB;"
    // Deliveries are read when they are due, of each share a part. `whose`: the lower half of its
    // hash. And the URLs that want no more.
    "ALTER TABLE deliveries ADD COLUMN whose BLOB NOT NULL DEFAULT x'0000000000000000';"
    "UPDATE deliveries SET whose="
    "  coalesce((SELECT substr(owner, 1, 8) FROM jobs WHERE jobs.seq=deliveries.seq), whose);"
    "CREATE INDEX deliveries_due ON deliveries(due_ms);"
    "CREATE INDEX deliveries_whose ON deliveries(whose, due_ms);"
    "CREATE TABLE gone_urls(n INTEGER PRIMARY KEY, url BLOB NOT NULL UNIQUE);"
    // Of jobs that have ended, those whose receipt the edge has not settled; what was told before
    // is not told again. And what an operator ordered.
    "UPDATE jobs SET receipt=x'' WHERE status>=3;"
    "CREATE INDEX IF NOT EXISTS jobs_unsettled ON jobs(seq) WHERE status>=3 AND receipt<>x'';"
    "CREATE TABLE IF NOT EXISTS orders(name BLOB PRIMARY KEY, value INTEGER NOT NULL)"
    "  WITHOUT ROWID;"
    // Lists are of the living, which are in memory, and of each owner's that have ended, by how;
    // those that did so a moment ago are in no order yet, see index_ended().
    "CREATE INDEX jobs_live ON jobs(seq) WHERE expires_ms IS NULL;"
    "CREATE TABLE ended(whose BLOB NOT NULL, how INTEGER NOT NULL, job INTEGER NOT NULL,"
    "  PRIMARY KEY(whose, how, job)) WITHOUT ROWID;"
    "CREATE TABLE recently_ended(job INTEGER PRIMARY KEY);"
    "INSERT INTO ended SELECT owner, status, seq FROM jobs WHERE status>=3"
    "  ORDER BY owner, status, seq;"
    "DROP TABLE owned; DROP TABLE owned_up_to;"};

constexpr char kColumns[] =
    "SELECT id, owner, status, key, digest, queue, model, tier, priority, weight, cost, jobs_path,"
    " callback, receipt, created_ms, not_before_ms, deadline_ms, attempts, dead, started_ms,"
    " finished_ms, expires_ms, http_status, content_type, error_code, error, prompt_tokens,"
    " completion_tokens, device_ns, result_bytes, result_in_file, share, seq ";

// The log is overwritten from its beginning and keeps its length, so that a flush need not write
// the file's size, too. Nobody else reads the database, so it needs no shared memory.
// NORMAL: a commit writes the log and does not flush it, as that is done by flush(), for many.
constexpr char kPragmas[] =
    "PRAGMA locking_mode=EXCLUSIVE;"
    "PRAGMA auto_vacuum=INCREMENTAL;"  // of a new one
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
    "PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=-1; PRAGMA cache_size=-2048;"
    "PRAGMA temp_store=MEMORY; PRAGMA foreign_keys=OFF;";

constexpr size_t kLogHeaderBytes = 32;
constexpr size_t kFrameHeaderBytes = 24;
// In a frame's header: the log's salts and the sums up to there.
constexpr size_t kSumsAt = 8;
constexpr size_t kSumsBytes = 16;

// The running sum over the log, and whether a frame is of it.
class LogSum {
 public:
  explicit LogSum(const std::string& header)
      : salt_(header.substr(16, 8)), big_endian_((header[3] & 1) != 0) {
    add(std::string_view(header).substr(0, 24));
  }
  static bool begins(const std::string& header) {
    constexpr uint32_t kMagic = 0x377F0682;  // the last bit: whether it sums big-endian words
    return (word(header.data(), true) & ~1U) == kMagic;
  }
  bool takes(std::string_view frame) {
    add(frame.substr(0, 8));
    add(frame.substr(kFrameHeaderBytes));
    return frame.substr(8, 8) == salt_ && word(frame.data() + 16, true) == first_ &&
           word(frame.data() + 20, true) == second_;
  }

 private:
  static uint32_t word(const char* at, bool big_endian) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
      word |= uint32_t{static_cast<uint8_t>(at[i])} << 8 * (big_endian ? 3 - i : i);
    }
    return word;
  }
  void add(std::string_view bytes) {
    for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
      first_ += word(bytes.data() + at, big_endian_) + second_;
      second_ += word(bytes.data() + at + 4, big_endian_) + first_;
    }
  }

  std::string salt_;
  bool big_endian_;
  uint32_t first_ = 0;
  uint32_t second_ = 0;
};

int64_t seq_of(const JobId& id) { return static_cast<int64_t>(sequence_of(id)); }

std::string_view as_bytes(const limit::Hash128& hash) {
  return {reinterpret_cast<const char*>(&hash), sizeof hash};
}

bool read_hash(std::string_view bytes, limit::Hash128& hash) {
  if (bytes.size() != sizeof hash) {
    return false;
  }
  std::memcpy(static_cast<void*>(&hash), bytes.data(), sizeof hash);
  return true;
}

// "20261125T180900Z"
std::string stamp() {
  char text[32];
  const time_t now = ::time(nullptr);
  tm utc;
  ::gmtime_r(&now, &utc);
  std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &utc);
  return text;
}

// Requests are in it, and Nginx's group may enter the folder: it is for nobody else to read. SQLite
// gives its log the database's own mode.
Status make_private(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) {
    return Error{path + " cannot be opened: " + std::strerror(errno)};
  }
  ::fchmod(file.get(), 0600);
  ::chmod((path + "-wal").c_str(), 0600);
  return Ok{};
}

// What is wrong with what it holds; empty: it is sound, or new. Errors: it could not be looked at,
// and may be as good as ever. `check`: every page is.
Result<std::string> damage_of(Database& database, bool check) {
  const auto unless_damaged = [&](const Error& error) {
    return database.damaged() ? Result<std::string>("it is damaged: " + error.message) : error;
  };
  if (Status good = database.execute(kPragmas); !good) {
    return unless_damaged(good.error());
  }
  const auto application = database.ask("PRAGMA application_id");
  const auto tables = database.ask("SELECT count(*) FROM sqlite_schema");
  if (!application || !tables) {
    return unless_damaged((application ? tables : application).error());
  }
  if (*tables != "0" && *application != std::to_string(kApplicationId)) {
    return std::string("it is a database of something else");
  }
  const auto found = database.ask(check ? "PRAGMA quick_check(1)" : "SELECT 'ok'");
  if (!found) {
    return unless_damaged(found.error());
  }
  for (const char* const unread : {"unable to get the page", "failed to get page"}) {
    if (found->find(unread) != found->npos) {
      return Error{*found};
    }
  }
  return *found == "ok" ? std::string() : "it is damaged: " + *found;
}

Status migrate(Database& database) {
  int version = 0;
  const auto text = database.ask("PRAGMA user_version");
  if (!text) {
    return text.error();
  }
  std::sscanf(text->c_str(), "%d", &version);
  if (version > kSchemaVersion) {
    return Error{"its schema is version " + *text + ", of a newer penstockd; this one knows " +
                 std::to_string(kSchemaVersion) +
                 ". Run that version, or set the file aside to begin anew"};
  }
  for (; version < kSchemaVersion; ++version) {
    const std::string sql = std::string("BEGIN IMMEDIATE;") + kMigrations[version] +
                            "PRAGMA application_id=" + std::to_string(kApplicationId) +
                            ";PRAGMA user_version=" + std::to_string(version + 1) + ";COMMIT";
    if (Status done = database.execute(sql); !done) {
      return done;
    }
  }
  return Ok{};
}

// The results that it tells of first: without a database they would be swept.
Status set_aside(const std::string& path, const std::string& why,
                 std::vector<std::string>& notices) {
  std::string suffix = ".damaged-" + stamp();
  while (std::filesystem::exists(path + suffix)) {
    suffix += "+";
  }
  const std::string aside = path + suffix;
  const auto results = std::filesystem::path(path).parent_path() / "results";
  const std::pair<std::string, std::string> moves[] = {
      {results, results.string() + suffix}, {path + "-wal", aside + "-wal"}, {path, aside}};
  for (const auto& [from, to] : moves) {
    std::error_code error;
    std::filesystem::rename(from, to, error);
    if (error && error != std::errc::no_such_file_or_directory) {
      // NOLINTNEXTLINE(performance-inefficient-string-concatenation): it ends the loop
      return Error{path + ": " + why + "; and " + from +
                   " cannot be set aside: " + error.message()};
    }
  }
  std::error_code error;
  std::filesystem::remove(path + "-shm", error);
  notices.push_back(path + " was set aside as " + aside + ", and a new one begun: " + why);
  return Ok{};
}

}  // namespace

Result<std::unique_ptr<JobTables>> JobTables::open(const Opening& opening,
                                                   std::vector<std::string>& notices) {
  const std::string& path = opening.path;
  for (int attempt = 0;; ++attempt) {  // a second time when the first was set aside
    if (Status is_private = make_private(path); !is_private) {
      return is_private.error();
    }
    auto database = Database::open(path, opening.vfs);
    if (!database) {
      return database.error();
    }
    const auto damage = damage_of(*database, opening.check);
    if (!damage) {
      return Error{path + " cannot be read: " + damage.error().message};
    }
    if (damage->empty()) {
      if (Status migrated = migrate(*database); !migrated) {
        return Error{path + ": " + migrated.error().message};
      }
      std::unique_ptr<JobTables> tables(new JobTables(*std::move(database)));
      Status ready = tables->extend_log(opening.log_bytes);
      ready = ready ? tables->read_state() : ready;
      if (!ready) {
        return Error{path + ": " + ready.error().message};
      }
      return tables;
    }
    if (!std::filesystem::exists(path) || attempt > 0) {
      return Error{path + ": " + *damage};
    }
    *database = Database();
    if (Status moved = set_aside(path, *damage, notices); !moved) {
      return moved.error();
    }
  }
}

JobTables::JobTables(Database database) : database_(std::move(database)) {
  const auto prepare = [this](Statement& statement, const std::string& sql) {
    statement = Statement(database_, sql.c_str());
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
          " attempts, submit, share) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
  prepare(insert_recent_, "INSERT OR IGNORE INTO recently_ended(job) VALUES(?)");
  prepare(index_recent_,
          "INSERT OR IGNORE INTO ended SELECT owner, status, seq FROM recently_ended"
          " CROSS JOIN jobs ON seq=job WHERE status>=3");
  prepare(forget_recent_, "DELETE FROM recently_ended");
  prepare(erase_recent_, "DELETE FROM recently_ended WHERE job=?");
  prepare(erase_ended_, "DELETE FROM ended WHERE whose=? AND how=? AND job=?");
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
  prepare(erase_result_, "DELETE FROM results WHERE seq=?");
  prepare(set_attempt_,
          "UPDATE jobs SET attempts=?, error_code=?, error=? WHERE seq=? AND status<3");
  // A job that did not complete has used up no key. One that a webhook is to tell of is kept
  // longer, until that is over.
  prepare(finish_,
          "UPDATE jobs SET status=?1, key=CASE WHEN ?1=3 THEN key END, dead=?2, started_ms=?3,"
          " finished_ms=?4, expires_ms=?5+(length(callback)>0)*?17, attempts=?6, http_status=?7,"
          " content_type=?8, error_code=?9, error=?10, prompt_tokens=?11, completion_tokens=?12,"
          " device_ns=?13, result_bytes=?14, result_in_file=?15,"
          " submit=CASE WHEN ?2=1 THEN submit END WHERE seq=?16 AND status<3");
  prepare(insert_result_, "INSERT OR REPLACE INTO results(seq, body) VALUES(?,?)");
  prepare(insert_delivery_,
          "INSERT OR IGNORE INTO deliveries(seq, id, tries, due_ms, whose)"
          " SELECT seq, id, 0, ?, substr(coalesce(share, owner), 1, 8) FROM jobs WHERE seq=? AND "
          "length(callback)>0");
  const std::string deliveries = "SELECT id, whose, tries, due_ms FROM deliveries ";
  prepare(due_,
          deliveries + "WHERE (due_ms, seq)>(?1, ?2) AND due_ms<=?3 ORDER BY due_ms, seq LIMIT ?4");
  prepare(due_of_owner_, deliveries + "WHERE whose=? AND due_ms<=? ORDER BY due_ms LIMIT ?");
  prepare(next_due_, "SELECT coalesce(min(due_ms), 0) FROM deliveries WHERE due_ms>?");
  prepare(count_due_, "SELECT count(*) FROM deliveries");
  prepare(insert_gone_url_, "INSERT OR IGNORE INTO gone_urls(url) VALUES(?)");
  prepare(forget_gone_urls_, "DELETE FROM gone_urls WHERE n<=(SELECT max(n) FROM gone_urls)-?");
  // What its edge had charged was given back when it failed, and is not charged again.
  prepare(requeue_,
          "UPDATE jobs SET status=1, dead=0, attempts=0, deadline_ms=?, not_before_ms=0,"
          " finished_ms=0, started_ms=0, expires_ms=NULL, http_status=0, receipt=x''"
          " WHERE seq=? AND dead=1");
  prepare(set_delivery_, "UPDATE deliveries SET tries=?, due_ms=? WHERE seq=?");
  prepare(erase_delivery_, "DELETE FROM deliveries WHERE seq=?");
  prepare(set_settled_, "UPDATE jobs SET receipt=x'' WHERE seq=? AND status>=3");
  prepare(set_order_, "INSERT OR REPLACE INTO orders(name, value) VALUES(?, ?)");
  prepare(erase_order_, "DELETE FROM orders WHERE name=?");
  prepare(keep_no_longer_, "UPDATE jobs SET expires_ms=expires_ms-? WHERE seq=?");
  const std::string rows = std::string(kColumns) + "FROM jobs ";
  prepare(expired_, rows + "WHERE expires_ms<=? ORDER BY expires_ms LIMIT ?");
  prepare(submit_of_, "SELECT submit FROM jobs WHERE seq=? AND submit IS NOT NULL");
  prepare(result_of_, "SELECT body FROM results WHERE seq=?");
  prepare(find_, rows + "WHERE seq=?");
  prepare(find_key_, rows + "WHERE key=?");
  const std::string older = "seq<?1 ORDER BY seq DESC";
  prepare(list_all_, rows + "WHERE " + older);
  prepare(list_live_, rows + "INDEXED BY jobs_live WHERE expires_ms IS NULL AND " + older);
  prepare(list_dead_, rows + "INDEXED BY jobs_dead WHERE dead=1 AND " + older);
  prepare(list_recent_, std::string(kColumns) +
                            "FROM recently_ended CROSS JOIN jobs ON seq=job"
                            " WHERE job<?1 AND owner=?2 ORDER BY job DESC");
  prepare(list_ended_, std::string(kColumns) +
                           "FROM ended CROSS JOIN jobs ON seq=job"
                           " WHERE job<?1 AND whose=?2 AND how=?3 ORDER BY job DESC");
}

Status JobTables::read_state() {
  int64_t unindexed = 0;
  const std::pair<const char*, int64_t*> wanted[] = {
      {"PRAGMA page_size", &page_bytes_}, {"SELECT count(*) FROM recently_ended", &unindexed}};
  for (const auto& [sql, value] : wanted) {
    const auto text = database_.ask(sql);
    if (!text) {
      return text.error();
    }
    *value = std::strtoll(text->c_str(), nullptr, 10);
  }
  unindexed_ = static_cast<uint32_t>(unindexed);
  // What an earlier process has committed may not have come to the disk.
  return rewrite_log() ? Status(Ok{}) : Error{"its log cannot be flushed"};
}

bool JobTables::begin() { return begin_.with().run(); }
bool JobTables::savepoint() { return savepoint_.with().run(); }
bool JobTables::release() { return release_.with().run(); }
bool JobTables::undo() { return undo_.with().run() && release(); }
bool JobTables::commit() {
  const bool many = unindexed_ >= kIndexedAtOnce;
  if ((many && !index_ended()) || !commit_.with().run()) {
    return false;
  }
  unindexed_ = many ? 0 : unindexed_;
  if (log_pages_ > 0) {
    last_sums_.resize(kSumsBytes);
    const size_t last = log_at(log_pages_ - 1) + kSumsAt;
    if (read_log(last_sums_, last) != SQLITE_OK) {
      last_sums_.clear();
    }
  }
  return true;
}

// Where that page's frame begins.
size_t JobTables::log_at(uint64_t page) const {
  return kLogHeaderBytes + page * (kFrameHeaderBytes + static_cast<size_t>(page_bytes_));
}

// An index by owner would be written to in as many places as jobs of different owners end, for each
// of them: what has ended since is indexed at once, and looked through until then.
bool JobTables::index_ended() { return index_recent_.with().run() && forget_recent_.with().run(); }

void JobTables::roll_back() {
  if (sqlite3_get_autocommit(database_.get()) == 0) {
    static_cast<void>(database_.execute("ROLLBACK"));
  }
}

// The log is given its full length before it is used, and keeps it: a flush then writes pages, and
// not the file's size and place on disk as well. What lies behind the log's end is not looked at.
Status JobTables::extend_log(uint64_t bytes) {
  int keep = 1;
  sqlite3_int64 size = 0;
  sqlite3_file_control(database_.get(), "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
  sqlite3_file_control(database_.get(), "main", SQLITE_FCNTL_JOURNAL_POINTER, &log_);
  if (log_ == nullptr || log_->pMethods == nullptr ||
      log_->pMethods->xFileSize(log_, &size) != SQLITE_OK) {
    return Error{"its log cannot be opened"};
  }
  const std::string zeros(64U << 10, '\0');
  for (; static_cast<uint64_t>(size) < bytes; size += static_cast<sqlite3_int64>(zeros.size())) {
    if (log_->pMethods->xWrite(log_, zeros.data(), static_cast<int>(zeros.size()), size) !=
        SQLITE_OK) {
      return Error{"its log cannot be extended to " + std::to_string(bytes) + " bytes"};
    }
  }
  log_bytes_ = size;
  sqlite3_wal_hook(
      database_.get(),
      [](void* pages, sqlite3*, const char*, int count) {
        *static_cast<uint64_t*>(pages) = static_cast<uint64_t>(count);
        return SQLITE_OK;
      },
      &log_pages_);
  return Ok{};
}

bool JobTables::flush() { return log_->pMethods->xSync(log_, SQLITE_SYNC_NORMAL) == SQLITE_OK; }

// The format: https://sqlite.org/fileformat2.html#the_write_ahead_log
bool JobTables::rewrite_log() {
  std::string header(kLogHeaderBytes, '\0');
  const int read = read_log(header, 0);
  if (read == SQLITE_IOERR_SHORT_READ || (read == SQLITE_OK && !LogSum::begins(header))) {
    return log_pages_ == 0 && flush();  // it is empty
  }
  if (read != SQLITE_OK) {
    return false;
  }
  if (!write_log(header, 0)) {
    return false;
  }
  LogSum sum(header);
  bool whole = log_pages_ == 0;
  std::string frame(kFrameHeaderBytes + static_cast<size_t>(page_bytes_), '\0');
  for (uint64_t pages = 1;; ++pages) {
    const size_t at = log_at(pages - 1);
    const int got = read_log(frame, at);
    if (got != SQLITE_OK && got != SQLITE_IOERR_SHORT_READ) {
      return false;
    }
    if (got != SQLITE_OK || !sum.takes(frame)) {
      return whole && flush();
    }
    // Older frames than those that were lost may be sound, too.
    whole = whole || (pages == log_pages_ && frame.substr(kSumsAt, kSumsBytes) == last_sums_);
    if (!write_log(frame, at)) {
      return false;
    }
  }
}

int JobTables::read_log(std::string& bytes, size_t at) {
  return log_->pMethods->xRead(log_, bytes.data(), static_cast<int>(bytes.size()),
                               static_cast<sqlite3_int64>(at));
}
bool JobTables::write_log(const std::string& bytes, size_t at) {
  return log_->pMethods->xWrite(log_, bytes.data(), static_cast<int>(bytes.size()),
                                static_cast<sqlite3_int64>(at)) == SQLITE_OK;
}

bool JobTables::checkpoint() {
  return sqlite3_wal_checkpoint_v2(database_.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr,
                                   nullptr) == SQLITE_OK;
}

Fault JobTables::fault() const {
  sqlite3* const database = const_cast<JobTables*>(this)->database_.get();
  Fault fault{Fault::Kind::kIo, false, database_.error("writing jobs").message};
  switch (sqlite3_errcode(database) & 0xFF) {
    case SQLITE_FULL:
      fault.kind = Fault::Kind::kNoSpace;
      break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      fault.kind = Fault::Kind::kCorrupt;
      break;
    case SQLITE_NOMEM:
      fault.kind = Fault::Kind::kBusy;
      break;
    case SQLITE_TOOBIG:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_RANGE:
      fault.kind = Fault::Kind::kRefused;
      fault.own = true;
      break;
    case SQLITE_IOERR:
      if (sqlite3_system_errno(database) == ENOSPC) {
        fault.kind = Fault::Kind::kNoSpace;
      }
      break;
    default:
      break;
  }
  return fault;
}

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
  if (!insert_.run()) {
    duplicate = (insert_.code() & 0xFF) == SQLITE_CONSTRAINT;
    return duplicate;
  }
  return true;
}

bool JobTables::erase(const JobRecord& job) {
  const int64_t seq = seq_of(job.id);
  return erase_.with(seq).run() && erase_result_.with(seq).run() &&
         erase_delivery_.with(seq).run() &&
         (!has_ended(job.status) ||
          (erase_recent_.with(seq).run() &&
           erase_ended_.with(as_bytes(job.owner), static_cast<int>(job.status), seq).run()));
}

JobTables::Damaged JobTables::read_damaged(Statement& row) {
  return {row.number(kSeqColumn), std::string(row.bytes(1)), std::string(row.bytes(0))};
}

bool JobTables::end_damaged(const Damaged& row, int64_t now_ms) {
  return end_damaged_.with(now_ms, now_ms + kDayMs, row.seq).run() &&
         insert_recent_.with(row.seq).run();
}

// Whatever its status says.
bool JobTables::erase_damaged(const Damaged& row) {
  bool good = erase_.with(row.seq).run() && erase_result_.with(row.seq).run() &&
              erase_delivery_.with(row.seq).run() && erase_recent_.with(row.seq).run();
  for (int how = static_cast<int>(JobStatus::kCompleted);
       good && how <= static_cast<int>(JobStatus::kExpired); ++how) {
    good = erase_ended_.with(row.owner, how, row.seq).run();
  }
  return good;
}

// Ids begin with the time of their making, so only the latest rows are looked at.
bool JobTables::clamp_expiries(int64_t now_ms) {
  constexpr int kCounterBits = 15;  // job_id.h
  return clamp_.with(now_ms, (now_ms + kDayMs) << kCounterBits, kDayMs).run();
}

bool JobTables::shrink() {
  const int64_t free = number(freelist_count_);
  return free < kManyFreePages || free < number(page_count_) / 4 || shrink_.with().run();
}

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
                       bool in_file, bool& changed) {
  const int64_t seq = seq_of(end.id);
  if (!finish_
           .with(static_cast<int>(end.status), end.dead ? 1 : 0, end.started_ms, end.finished_ms,
                 end.expires_ms, end.attempts, int{end.http_status}, end.content_type,
                 end.error_code, end.error, end.prompt_tokens, end.completion_tokens, end.device_ns,
                 result_bytes, in_file ? 1 : 0, seq, Store::kDeliveryMs)
           .run()) {
    return false;
  }
  changed = database_.changes() > 0;
  if (!changed) {
    return true;
  }
  ++unindexed_;
  const bool stored = result.empty() || in_file || insert_result_.with(seq, result).run();
  return stored && insert_recent_.with(seq).run() &&
         insert_delivery_.with(end.finished_ms, seq).run();
}

bool JobTables::requeue(const JobId& id, int64_t deadline_ms, std::optional<JobRecord>& job) {
  if (!requeue_.with(deadline_ms, seq_of(id)).run()) {
    return false;
  }
  if (database_.changes() == 0) {
    return true;
  }
  const int64_t seq = seq_of(id);
  return erase_delivery_.with(seq).run() && find(id, job) && erase_recent_.with(seq).run() &&
         (!job ||
          erase_ended_.with(as_bytes(job->owner), static_cast<int>(JobStatus::kFailed), seq).run());
}

bool JobTables::set_delivery(const JobId& id, uint32_t tries, int64_t due_ms) {
  const int64_t seq = seq_of(id);
  if (due_ms != 0) {
    return set_delivery_.with(tries, due_ms, seq).run();
  }
  return erase_delivery_.with(seq).run() &&
         (database_.changes() == 0 || keep_no_longer_.with(Store::kDeliveryMs, seq).run());
}

bool JobTables::read_row(Statement& row, JobRecord& job) {
  const auto id = parse_job_id(row.bytes(0));
  const int64_t status = row.number(2);
  if (!id || !read_hash(row.bytes(1), job.owner) || status < 0 ||
      status > static_cast<int64_t>(JobStatus::kExpired) ||
      (!row.null(3) && !read_hash(row.bytes(3), job.key)) || !read_hash(row.bytes(4), job.digest) ||
      (!row.null(31) && !read_hash(row.bytes(31), job.share))) {
    return false;
  }
  if (row.null(31)) {
    job.share = job.owner;
  }
  job.id = job.end.id = *id;
  job.status = job.end.status = static_cast<JobStatus>(status);
  job.queue = row.bytes(5);
  job.model = row.bytes(6);
  job.tier = row.bytes(7);
  job.priority = row.number(8);
  job.weight = static_cast<uint64_t>(row.number(9));
  job.cost = static_cast<uint64_t>(row.number(10));
  job.jobs_path = row.bytes(11);
  job.callback = row.bytes(12);
  job.receipt = row.bytes(13);
  job.created_ms = row.number(14);
  job.not_before_ms = row.number(15);
  job.deadline_ms = row.number(16);
  job.end.attempts = static_cast<uint32_t>(row.number(17));
  job.end.dead = row.number(18) != 0;
  job.end.started_ms = row.number(19);
  job.end.finished_ms = row.number(20);
  job.end.expires_ms = row.number(21);
  job.end.http_status = static_cast<uint16_t>(row.number(22));
  job.end.content_type = row.bytes(23);
  job.end.error_code = row.bytes(24);
  job.end.error = row.bytes(25);
  job.end.prompt_tokens = static_cast<uint64_t>(row.number(26));
  job.end.completion_tokens = static_cast<uint64_t>(row.number(27));
  job.end.device_ns = static_cast<uint64_t>(row.number(28));
  job.result_bytes = static_cast<uint64_t>(row.number(29));
  job.result_in_file = row.number(30) != 0;
  return true;
}

bool JobTables::one(Statement& statement, std::optional<JobRecord>& job) {
  if (JobRecord read; statement.step() && read_row(statement, read)) {
    job = std::move(read);
  }
  const bool good = !statement.failed();
  statement.reset();
  return good;
}

bool JobTables::find(const JobId& id, std::optional<JobRecord>& job) {
  const bool good = one(find_.with(seq_of(id)), job);
  if (job && !(job->id == id)) {
    job.reset();  // a guess of the rest of it
  }
  return good;
}

bool JobTables::find_key(const limit::Hash128& key, std::optional<JobRecord>& job) {
  return one(find_key_.with(as_bytes(key)), job);
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

// The rows of one statement, newest first, down to where enough of them fit or have been looked at.
bool JobTables::take(Statement& rows, const Store::Query& query, Store::Page& page) {
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

bool JobTables::list(const Store::Query& query, Store::Page& page) {
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
bool JobTables::list_ended(const Store::Query& query, Store::Page& page) {
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

bool JobTables::expired(int64_t now_ms, uint32_t most, std::vector<JobRecord>& jobs,
                        std::vector<Damaged>& damaged) {
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
                           std::vector<Damaged>& damaged) {
  Statement all(database_, (std::string(kColumns) + "FROM jobs INDEXED BY jobs_live"
                                                    " WHERE expires_ms IS NULL ORDER BY seq")
                               .c_str());
  while (all.step()) {
    if (JobRecord job; read_row(all, job) && !has_ended(job.status)) {
      each(std::move(job));
    } else {
      damaged.push_back(read_damaged(all));
    }
  }
  return !all.failed();
}

bool JobTables::due(const Store::DueQuery& query, Store::DuePage& page) {
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
    page.next_ms = number(next_due_.with(query.until_ms));
    page.all = static_cast<uint64_t>(number(count_due_));
  }
  return good;
}

bool JobTables::disable_url(std::string_view url) {
  return insert_gone_url_.with(url).run() && forget_gone_urls_.with(Store::kMostGoneUrls).run();
}

bool JobTables::gone_urls(std::vector<std::string>& urls) {
  Statement all(database_, "SELECT url FROM gone_urls ORDER BY n");
  while (all.step()) {
    urls.emplace_back(all.bytes(0));
  }
  return !all.failed();
}

bool JobTables::set_settled(uint64_t number) {
  return set_settled_.with(static_cast<int64_t>(number)).run();
}

bool JobTables::unsettled(size_t most, const std::function<void(JobRecord&&)>& each) {
  Statement all(database_, (std::string(kColumns) +
                            "FROM jobs WHERE status>=3 AND receipt<>x'' ORDER BY seq DESC LIMIT ?")
                               .c_str());
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

bool JobTables::orders(Store::Orders& orders) {
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

int64_t JobTables::number(Statement& statement) {
  statement.reset();
  const int64_t value = statement.step() ? statement.number(0) : 0;
  statement.reset();
  return value;
}

uint64_t JobTables::bytes() {
  return static_cast<uint64_t>(page_bytes_ * (number(page_count_) - number(freelist_count_)));
}

uint64_t JobTables::disk_bytes() {
  return static_cast<uint64_t>(page_bytes_ * number(page_count_) + log_bytes_);
}

}  // namespace penstock::queue
