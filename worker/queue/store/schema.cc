#include "worker/queue/store/schema.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <time.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "shared/base/call_failed.h"
#include "shared/base/fd.h"
#include "shared/base/utc.h"

namespace penstock::queue {
namespace {

constexpr int kApplicationId = 0x50454E53;  // "PENS"
constexpr int kSchemaVersion = 9;

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
    // Each owner's jobs, of all jobs up to that one.
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
    // those that did so a moment ago are in no order yet, see JobTables.
    "CREATE INDEX jobs_live ON jobs(seq) WHERE expires_ms IS NULL;"
    "CREATE TABLE ended(whose BLOB NOT NULL, how INTEGER NOT NULL, job INTEGER NOT NULL,"
    "  PRIMARY KEY(whose, how, job)) WITHOUT ROWID;"
    "CREATE TABLE recently_ended(job INTEGER PRIMARY KEY);"
    "INSERT INTO ended SELECT owner, status, seq FROM jobs WHERE status>=3"
    "  ORDER BY owner, status, seq;"
    "DROP TABLE owned; DROP TABLE owned_up_to;",
    // Headers of the result, and whether what the job used was told or guessed.
    ("ALTER TABLE jobs ADD COLUMN headers BLOB NOT NULL DEFAULT x'';"
     "ALTER TABLE jobs ADD COLUMN estimated INTEGER NOT NULL DEFAULT 0;"),
    // Its owner's words for a job.
    "ALTER TABLE jobs ADD COLUMN label BLOB NOT NULL DEFAULT x'';",
    // What was asked, of those whose answer others that ask the same may have. And what an
    // operator's hooks are still to be told.
    ("ALTER TABLE jobs ADD COLUMN earlier BLOB;"
     "CREATE INDEX jobs_earlier ON jobs(earlier) WHERE earlier IS NOT NULL AND status=3;"
     "CREATE TABLE notices(hook BLOB NOT NULL, seq INTEGER NOT NULL, id BLOB NOT NULL,"
     "  made_ms INTEGER NOT NULL, tries INTEGER NOT NULL, due_ms INTEGER NOT NULL,"
     "  fields BLOB NOT NULL, json BLOB NOT NULL, PRIMARY KEY(hook, seq)) WITHOUT ROWID;"
     "CREATE INDEX notices_due ON notices(hook, due_ms);"),
    // What was promised of jobs that Redis has.
    "CREATE TABLE away(id BLOB PRIMARY KEY, job BLOB NOT NULL) WITHOUT ROWID;",
    // The ledger: what each owner used, by the hour. And whether a job had been paid before it ran.
    ("CREATE TABLE usage(hour INTEGER NOT NULL, owner BLOB NOT NULL, queue BLOB NOT NULL,"
     "  model BLOB NOT NULL, completed INTEGER NOT NULL, failed INTEGER NOT NULL,"
     "  cancelled INTEGER NOT NULL, expired INTEGER NOT NULL, joined INTEGER NOT NULL,"
     "  requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,"
     "  completion_tokens INTEGER NOT NULL, gpu_ms INTEGER NOT NULL,"
     "  PRIMARY KEY(hour, owner, queue, model)) WITHOUT ROWID;"
     "CREATE TABLE usage_mark(mark INTEGER NOT NULL);"
     "INSERT INTO usage_mark VALUES(0);"
     "ALTER TABLE jobs ADD COLUMN paid INTEGER NOT NULL DEFAULT 0;"),
    // The trace that a job belongs to.
    "ALTER TABLE jobs ADD COLUMN trace BLOB NOT NULL DEFAULT x'';"};

// The log is overwritten from its beginning and keeps its length, so that a flush need not write
// the file's size, too. Nobody else reads the database, so it needs no shared memory.
// NORMAL: a commit writes the log and does not flush it, as that is done by flush(), for many.
constexpr char kPragmas[] =
    "PRAGMA locking_mode=EXCLUSIVE;"
    "PRAGMA auto_vacuum=INCREMENTAL;"  // of a new one
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
    "PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=-1; PRAGMA cache_size=-2048;"
    "PRAGMA temp_store=MEMORY; PRAGMA foreign_keys=OFF;"
    "PRAGMA secure_delete=FAST;";  // what is deleted within a page is overwritten, as that is free

// Requests are in it, and Nginx's group may enter the folder: it is for nobody else to read. SQLite
// gives its log the database's own mode.
Status make_private(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) {
    return Error{path + " cannot be opened: " + std::strerror(errno), kind_of_errno(errno)};
  }
  ::fchmod(file.get(), 0600);
  ::chmod((path + "-wal").c_str(), 0600);
  return Ok{};
}

// What is wrong with what it holds; empty: it is sound, or new. Errors: it could not be looked at,
// and may be as good as ever. `check`: every page is.
Result<std::string> damage_of(Database& database, bool check) {
  const auto unless_damaged = [](const Error& error) {
    return error.kind == ErrorKind::kCorrupt
               ? Result<std::string>("it is damaged: " + error.message)
               : error;
  };
  if (Status good = database.execute(kPragmas); !good) {
    return unless_damaged(good.error());
  }
  const auto application = database.ask("PRAGMA application_id");
  const auto tables = database.ask("SELECT count(*) FROM sqlite_schema");
  if (!application || !tables) {
    return unless_damaged((application ? tables : application).error());
  }
  if (*tables != "0" && !is_ours(*application)) {
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
    return Error{
        fmt::format("its schema is version {}, of a newer penstockd; this one knows {}. "
                    "Run that version, or set the file aside to begin anew",
                    *text, kSchemaVersion)};
  }
  for (; version < kSchemaVersion; ++version) {
    const std::string sql =
        fmt::format("BEGIN IMMEDIATE;{}PRAGMA application_id={};PRAGMA user_version={};COMMIT",
                    kMigrations[version], kApplicationId, version + 1);
    if (Status done = database.execute(sql); !done) {
      return done;
    }
  }
  return Ok{};
}

// The results that it tells of first: without a database they would be swept.
Status set_aside(const std::string& path, const std::string& why,
                 std::vector<std::string>& notices) {
  std::string suffix = ".damaged-" + utc_text(::time(nullptr), kBasicIsoUtc);
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

bool is_ours(std::string_view application_id) {
  return application_id == std::to_string(kApplicationId);
}

int schema_version() { return kSchemaVersion; }

Result<Database> open_database(const std::string& path, const std::string& vfs, bool check,
                               std::vector<std::string>& notices) {
  for (int attempt = 0;; ++attempt) {  // a second time when the first was set aside
    if (Status is_private = make_private(path); !is_private) {
      return is_private.error();
    }
    auto database = Database::open(path, vfs);
    if (!database) {
      return database.error();
    }
    const auto damage = damage_of(*database, check);
    if (!damage) {
      return Error{path + " cannot be read: " + damage.error().message};
    }
    if (damage->empty()) {
      if (Status migrated = migrate(*database); !migrated) {
        return Error{path + ": " + migrated.error().message};
      }
      return database;
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

}  // namespace penstock::queue
