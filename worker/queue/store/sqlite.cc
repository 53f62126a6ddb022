#include "worker/queue/store/sqlite.h"

#include <cerrno>

namespace penstock::queue {
namespace {

ErrorKind kind_of(sqlite3* database) {
  switch (sqlite3_errcode(database) & 0xFF) {
    case SQLITE_FULL:
      return ErrorKind::kNoSpace;
    case SQLITE_IOERR:
      return sqlite3_system_errno(database) == ENOSPC ? ErrorKind::kNoSpace : ErrorKind::kIo;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return ErrorKind::kCorrupt;
    case SQLITE_NOMEM:
      return ErrorKind::kBusy;
    case SQLITE_TOOBIG:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_RANGE:
      return ErrorKind::kRefused;
    default:
      return ErrorKind::kIo;
  }
}

}  // namespace

Result<Database> Database::open(const std::string& path, const std::string& vfs, int flags) {
  sqlite3* opened = nullptr;
  const int rc =
      sqlite3_open_v2(path.c_str(), &opened,
                      flags == 0 ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX
                                 : SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | flags,
                      vfs.empty() ? nullptr : vfs.c_str());
  Database database;
  database.database_.reset(opened);
  if (rc != SQLITE_OK) {
    return Error{path + " cannot be opened: " + sqlite3_errstr(rc)};
  }
  sqlite3_extended_result_codes(opened, 1);
  // A log of which nobody knows whether it is on disk must not be moved into the database.
  sqlite3_db_config(opened, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  return database;
}

Status Database::execute(const std::string& sql) {
  if (sqlite3_exec(database_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    return error("\"" + sql.substr(0, 60) + "\"");
  }
  return Ok{};
}

Error Database::error(const std::string& doing) const {
  return Error{doing + " failed: " + sqlite3_errmsg(database_.get()), kind_of(database_.get())};
}

Result<std::string> Database::ask(const std::string& sql) {
  Statement statement(*this, sql);
  if (!statement.step()) {
    return statement.failed() ? error("\"" + sql + "\"") : Error{"\"" + sql + "\" yields nothing"};
  }
  return std::string(statement.bytes(0));
}

Statement::Statement(Database& database, const std::string& sql) {
  sqlite3_stmt* prepared = nullptr;
  rc_ = sqlite3_prepare_v3(database.get(), sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &prepared,
                           nullptr);
  statement_.reset(prepared);
}

void Statement::reset() {
  sqlite3_reset(statement_.get());
  bound_ = 0;
  rc_ = SQLITE_OK;
}

bool Statement::step() {
  if (rc_ != SQLITE_OK && rc_ != SQLITE_ROW) {
    return false;  // it could not be prepared or bound, or is over
  }
  rc_ = sqlite3_step(statement_.get());
  return rc_ == SQLITE_ROW;
}

bool Statement::run() {
  while (step()) {
  }
  const bool good = !failed();
  const int rc = rc_;
  sqlite3_reset(statement_.get());
  rc_ = rc;
  return good;
}

int64_t Statement::only_number() {
  const int64_t value = step() ? number(0) : 0;
  reset();
  return value;
}

std::string_view Statement::bytes(int column) {
  const void* const data = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return {static_cast<const char*>(data), data == nullptr ? 0 : static_cast<size_t>(size)};
}

void Statement::bind(std::string_view bytes) {
  // A null pointer would bind NULL.
  bind_next([&] {
    return sqlite3_bind_blob64(statement_.get(), bound_,
                               bytes.data() == nullptr ? "" : bytes.data(), bytes.size(),
                               SQLITE_STATIC);
  });
}

}  // namespace penstock::queue
