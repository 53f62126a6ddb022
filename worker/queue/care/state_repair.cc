// Repairs of a state that nobody uses: see state_check.h.
#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "shared/base/call_failed.h"
#include "worker/queue/care/backup.h"
#include "worker/queue/care/state_check.h"
#include "worker/queue/care/state_queries.h"
#include "worker/queue/store/job_row.h"
#include "worker/queue/store/state_folder.h"

namespace penstock::queue {
namespace {

namespace fs = std::filesystem;
using Level = Finding::Level;

void note(std::vector<Finding>& findings, const char* about, std::string text) {
  findings.push_back({Level::kOk, about, std::move(text), {}});
}

bool is_sound(Database& database) {
  const auto found = database.ask("PRAGMA integrity_check(1)");
  return found && *found == "ok";
}

Status repair_pages(Database& database, std::vector<Finding>& findings) {
  if (is_sound(database)) {
    return Ok{};
  }
  if (Status done = database.execute("REINDEX"); !done || !is_sound(database)) {
    return Error{
        "its pages are damaged, not only its indexes: docs/STATE.md, \"A damaged "
        "database\", or restore a backup",
        ErrorKind::kCorrupt};
  }
  note(findings, "database", "its indexes were damaged, and are made anew");
  return Ok{};
}

Status repair_rows(Database& database, std::vector<Finding>& findings) {
  for (const Mismatch& each : kMismatches) {
    Statement count(database, std::string("SELECT count(*) FROM ") + each.from);
    const int64_t found = count.only_number();
    if (found == 0) {
      continue;
    }
    if (Status done = database.execute(each.repair); !done) {
      return done;
    }
    note(findings, each.about, fmt::format("{} {}", found, each.done));
  }
  return Ok{};
}

// Jobs whose files are not there have failed; before their lists are put in order.
Status repair_files(Database& database, const std::string& folder, std::vector<Finding>& findings) {
  std::vector<std::string> gone;
  Statement rows(database, kFilesQuery);
  while (rows.step()) {
    if (!is_whole(folder, rows.bytes(0), rows.number(1))) {
      gone.emplace_back(rows.bytes(0));
    }
  }
  if (rows.failed()) {
    return database.error("reading jobs");
  }
  Statement fail(database,
                 "UPDATE jobs SET status=4, key=NULL, earlier=NULL, http_status=502,"
                 " result_bytes=0, result_in_file=0, error_code=CAST('engine_failed' AS BLOB),"
                 " error=CAST('Its result is lost.' AS BLOB) WHERE id=?");
  for (const std::string& id : gone) {
    if (!fail.with(id).run()) {
      return database.error("ending a job");
    }
  }
  if (!gone.empty()) {
    note(findings, "results", fmt::format("{} jobs whose files are gone have failed", gone.size()));
  }
  return Ok{};
}

}  // namespace

bool is_whole(const std::string& folder, std::string_view id, int64_t bytes) {
  struct stat status {};
  return parse_job_id(id) &&
         ::stat((folder + "/results/" + std::string(id)).c_str(), &status) == 0 &&
         status.st_size == bytes;
}

void for_each_stray(Database& database, const std::string& folder,
                    const std::function<void(const std::string&)>& each) {
  Statement known(database, "SELECT 1 FROM jobs WHERE seq=? AND id=? AND result_in_file=1");
  std::error_code none;
  for (const auto& file : fs::directory_iterator(folder + "/results", none)) {
    const std::string name = file.path().filename();
    const auto id = parse_job_id(name);
    if (!id || !known.with(seq_of(*id), name).step()) {
      each(name);
    }
    known.reset();
  }
}

Status secret_is_whole(const std::string& folder) {
  std::error_code none;
  if (!fs::exists(folder + "/secret", none)) {
    return Error{folder + "/secret is not there: nobody would see their earlier jobs"};
  }
  const auto secret = StateFolder::read_secret(folder + "/secret");
  return secret ? Status(Ok{}) : secret.error();
}

Result<std::vector<Finding>> repair_state(const std::string& folder) {
  auto state = IdleState::open(folder, true);
  if (!state) {
    return state.error();
  }
  if (!state->old_schema.empty()) {
    return older(folder, state->old_schema);
  }
  Database& database = state->database;
  std::vector<Finding> findings;
  Status done = repair_pages(database, findings);
  done = done ? database.execute("BEGIN IMMEDIATE") : done;
  done = done ? repair_files(database, folder, findings) : done;
  done = done ? repair_rows(database, findings) : done;
  done = done ? database.execute("COMMIT") : done;
  if (!done) {
    findings.push_back({Level::kBad, "database", done.error().message, {}});
    return findings;
  }
  std::vector<std::string> stray;
  for_each_stray(database, folder, [&](const std::string& name) { stray.push_back(name); });
  for (const std::string& name : stray) {
    ::unlink(fmt::format("{}/results/{}", folder, name).c_str());
  }
  if (!stray.empty()) {
    note(findings, "results",
         fmt::format("{} files that belonged to no job are removed", stray.size()));
  }
  if (sqlite3_wal_checkpoint_v2(database.get(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr,
                                nullptr) != SQLITE_OK) {
    findings.push_back({Level::kBad, "log", database.error("emptying it").message, {}});
  } else {
    note(findings, "log", "all of it is in the database; what lay behind its end is cut off");
  }
  if (Status secret = secret_is_whole(folder); !secret) {
    findings.push_back({Level::kBad, "secret", secret.error().message, "put back a copy of it"});
  }
  return findings;
}

Status copy_state(const std::string& from, const std::string& to) {
  auto state = IdleState::open(from, false);
  if (!state) {
    return state.error();
  }
  std::error_code none;
  if (fs::exists(to, none)) {
    return Error{to + " is there already"};
  }
  for (const std::string& folder : {to, to + "/results"}) {
    if (::mkdir(folder.c_str(), 0750) != 0) {
      return call_failed(folder, "mkdir");
    }
  }
  belong_as(to, from);
  belong_as(to + "/results", from + "/results");
  for (const char* const name : {"/secret", "/usage", "/paces", "/jobs.db-wal", "/jobs.db"}) {
    if (!fs::exists(from + name, none)) {
      continue;
    }
    if (const auto copied = copy_file(from + name, to + name); !copied) {
      return copied.error();
    }
  }
  for (const auto& file : fs::directory_iterator(from + "/results", none)) {
    const std::string name = "/results/" + file.path().filename().string();
    if (::link((from + name).c_str(), (to + name).c_str()) != 0) {
      return call_failed(from + name, "linking it");
    }
  }
  return Ok{};
}

}  // namespace penstock::queue
