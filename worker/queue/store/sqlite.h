// A thin hold on SQLite's C interface (https://sqlite.org/cintro.html): ownership, and errors as
// values. Statements are prepared once and used again; text and blobs are bound where they lie, so
// they must outlive the step.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "shared/base/result.h"

namespace penstock::queue {

class Database;

class Statement {
 public:
  Statement() = default;
  Statement(Database& database, const std::string& sql);

  // Binds the statement's parameters in their order, from the first after reset().
  template <typename... Values>
  Statement& with(const Values&... values) {
    reset();
    (bind(values), ...);
    return *this;
  }
  template <typename... Values>
  void and_with(const Values&... values) {
    (bind(values), ...);
  }
  // True: a row is there. False: no more, or failed().
  bool step();
  // Runs it to its end. False: it failed.
  bool run();
  // The only column of its only row; 0: there is none. It is reset.
  int64_t only_number();
  bool failed() const { return rc_ != SQLITE_OK && rc_ != SQLITE_ROW && rc_ != SQLITE_DONE; }
  int code() const { return rc_; }
  void reset();

  int64_t number(int column) { return sqlite3_column_int64(statement_.get(), column); }
  bool null(int column) { return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL; }
  std::string_view bytes(int column);  // until the next step

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  // step() tells of the first that fails; those after it are not tried.
  template <typename Bind>
  void bind_next(Bind&& bind) {
    ++bound_;
    rc_ = rc_ == SQLITE_OK ? bind() : rc_;
  }
  void bind(int64_t value) {
    bind_next([&] { return sqlite3_bind_int64(statement_.get(), bound_, value); });
  }
  void bind(uint64_t value) { bind(static_cast<int64_t>(value)); }
  void bind(int value) { bind(int64_t{value}); }
  void bind(uint32_t value) { bind(int64_t{value}); }
  void bind(std::string_view bytes);
  void bind(const std::string& bytes) { bind(std::string_view(bytes)); }
  void bind(std::nullptr_t) {
    bind_next([&] { return sqlite3_bind_null(statement_.get(), bound_); });
  }

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  int bound_ = 0;
  int rc_ = SQLITE_OK;
};

class Database {
 public:
  // `flags` of sqlite3_open_v2(), beside those that any has; SQLITE_OPEN_URI: only what is there.
  static Result<Database> open(const std::string& path, const std::string& vfs, int flags = 0);

  Status execute(const std::string& sql);
  sqlite3* get() { return database_.get(); }
  // What SQLite says of the last error. kCorrupt: what the file holds is wrong, not only that the
  // file cannot be had. kRefused: what was asked is wrong.
  Error error(const std::string& doing) const;
  int64_t changes() const { return sqlite3_changes64(database_.get()); }
  // The first column of the only row.
  Result<std::string> ask(const std::string& sql);

 private:
  struct Close {
    void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
  };
  std::unique_ptr<sqlite3, Close> database_;
};

}  // namespace penstock::queue
