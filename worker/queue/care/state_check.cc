#include "worker/queue/care/state_check.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "shared/base/call_failed.h"
#include "shared/base/utf8.h"
#include "worker/queue/care/backup.h"
#include "worker/queue/care/state_queries.h"
#include "worker/queue/jobs/job_view.h"
#include "worker/queue/store/job_row.h"
#include "worker/queue/store/schema.h"
#include "worker/queue/text/base64.h"
#include "worker/queue/text/json.h"

namespace penstock::queue {
namespace {

namespace fs = std::filesystem;
using Level = Finding::Level;

bool has_log(const std::string& folder) {
  std::error_code none;
  const auto size = fs::file_size(folder + "/jobs.db-wal", none);
  return !none && size > 0;
}

// What lies there stays as it is. Without a log, nothing is locked nor made either.
Result<Database> open_to_read(const std::string& folder) {
  const std::string path = folder + "/jobs.db";
  const bool whole = !has_log(folder);
  std::string uri = "file:";
  for (const char c : path) {
    uri += c == '?' || c == '#' || c == '%' ? fmt::format("%{:02x}", static_cast<uint8_t>(c))
                                            : std::string(1, c);
  }
  auto database =
      Database::open(whole ? uri + "?immutable=1" : path, {}, whole ? SQLITE_OPEN_URI : 0);
  if (database && !whole) {
    if (Status exclusive = database->execute("PRAGMA locking_mode=EXCLUSIVE"); !exclusive) {
      return exclusive.error();
    }
  }
  return database;
}

void look_at_modes(const std::string& folder, std::vector<Finding>& findings) {
  const std::pair<const char*, mode_t> most[] = {{"", 0750},
                                                 {"/jobs.db", 0600},
                                                 {"/jobs.db-wal", 0600},
                                                 {"/secret", 0600},
                                                 {"/results", 0750}};
  const size_t before = findings.size();
  for (const auto& [name, mode] : most) {
    const std::string path = folder + name;
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0 && (status.st_mode & 0777 & ~mode) != 0) {
      findings.push_back({Level::kWarn, "modes",
                          fmt::format("{} has mode {:04o}", path, status.st_mode & 07777),
                          fmt::format("chmod {:04o} {}", mode, path)});
    }
  }
  if (findings.size() == before) {
    findings.push_back({Level::kOk, "modes", "nothing is open to more than it should be", {}});
  }
}

void look_at_pages(Database& database, std::vector<Finding>& findings) {
  constexpr size_t kMostTold = 10;
  Statement check(database, "PRAGMA integrity_check(100)");
  size_t wrong = 0;
  for (; check.step(); ++wrong) {
    const std::string said(check.bytes(0));
    if (said == "ok") {
      break;
    }
    if (wrong < kMostTold) {
      findings.push_back(
          {Level::kBad, "database", said,
           "penstockctl repair; what that cannot: docs/STATE.md, \"A damaged database\""});
    }
  }
  if (check.failed()) {
    findings.push_back({Level::kBad, "database", database.error("integrity_check").message,
                        "docs/STATE.md, \"A damaged database\""});
  } else if (wrong == 0) {
    findings.push_back({Level::kOk, "database", "every page is sound", {}});
  }
}

void look_at_rows(Database& database, std::vector<Finding>& findings) {
  int64_t jobs = 0;
  int64_t damaged = 0;
  Statement rows(database, select_jobs("FROM jobs ORDER BY seq"));
  for (; rows.step(); ++jobs) {
    if (JobRecord job; !read_row(rows, job)) {
      ++damaged;
    }
  }
  if (rows.failed()) {
    findings.push_back({Level::kBad, "jobs", database.error("reading them").message, {}});
  }
  if (damaged > 0) {
    findings.push_back({Level::kBad, "jobs", fmt::format("{} of {} cannot be read", damaged, jobs),
                        "they end as failed at the next start"});
  } else {
    findings.push_back({Level::kOk, "jobs", fmt::format("{}, all can be read", jobs), {}});
  }
}

void look_at_orphans(Database& database, std::vector<Finding>& findings) {
  for (const Mismatch& each : kMismatches) {
    Statement count(database, std::string("SELECT count(*) FROM ") + each.from);
    const int64_t found = count.only_number();
    if (found > 0) {
      findings.push_back({each.loses ? Level::kBad : Level::kWarn, each.about,
                          fmt::format("{} {}", found, each.what), "penstockctl repair"});
    }
  }
}

void look_at_results(Database& database, const std::string& folder,
                     std::vector<Finding>& findings) {
  int64_t files = 0, gone = 0, stray = 0;
  Statement rows(database, kFilesQuery);
  for (; rows.step(); ++files) {
    gone += is_whole(folder, rows.bytes(0), rows.number(1)) ? 0 : 1;
  }
  for_each_stray(database, folder, [&](const std::string&) { ++stray; });
  if (gone > 0) {
    findings.push_back(
        {Level::kBad, "results",
         fmt::format("{} of {} files are not there, or not whole", gone, files),
         "put them back from a backup; else penstockctl repair ends their jobs as failed"});
  }
  if (stray > 0) {
    findings.push_back({Level::kWarn, "results", fmt::format("{} files belong to no job", stray),
                        "the next start removes them"});
  }
  if (gone + stray == 0) {
    findings.push_back({Level::kOk, "results", fmt::format("{} files, all whole", files), {}});
  }
}

}  // namespace

Result<IdleState> IdleState::open(const std::string& folder, bool to_write) {
  IdleState state;
  struct stat status {};
  if (::stat((folder + "/jobs.db").c_str(), &status) != 0) {
    return Error{folder + " is no state of penstockd: it has no jobs.db"};
  }
  state.lock.reset(::open((folder + "/lock").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (state.lock.valid() && ::flock(state.lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{
        "a penstockd uses " + folder + ": stop it, or look at a backup of it (penstockctl backup)",
        ErrorKind::kBusy};
  }
  auto database = to_write ? Database::open(folder + "/jobs.db", {}) : open_to_read(folder);
  if (!database) {
    return database.error();
  }
  state.database = *std::move(database);
  if (to_write) {
    if (Status ready =
            state.database.execute("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL");
        !ready) {
      return ready.error();
    }
  }
  const auto application = state.database.ask("PRAGMA application_id");
  const auto version = state.database.ask("PRAGMA user_version");
  if (!application || !version) {
    return Error{folder + "/jobs.db cannot be read: " +
                     (application ? version : application).error().message +
                     "; docs/STATE.md, \"A damaged database\"",
                 ErrorKind::kCorrupt};
  }
  if (!is_ours(*application)) {
    return Error{folder + "/jobs.db is a database of something else"};
  }
  if (std::strtol(version->c_str(), nullptr, 10) > schema_version()) {
    return Error{fmt::format("{}/jobs.db has schema {}, of a newer penstockd; this one knows {}",
                             folder, *version, schema_version())};
  }
  state.old_schema = *version == std::to_string(schema_version()) ? "" : *version;
  return state;
}

Result<std::vector<Finding>> check_state(const std::string& folder) {
  std::vector<Finding> findings;
  if (is_backup(folder)) {
    const auto sums = check_sums(folder);
    findings.push_back(
        sums ? Finding{Level::kOk,
                       "digests",
                       fmt::format("{} files are as they were written", *sums),
                       {}}
             : Finding{Level::kBad, "digests", sums.error().message, "take another backup"});
  }
  auto state = IdleState::open(folder, false);
  if (!state && state.error().kind == ErrorKind::kCorrupt) {
    findings.push_back({Level::kBad, "database", state.error().message, {}});
    return findings;
  }
  if (!state) {
    return state.error();
  }
  look_at_modes(folder, findings);
  if (const auto secret = secret_is_whole(folder); !secret) {
    findings.push_back({Level::kBad, "secret", secret.error().message, {}});
  }
  look_at_pages(state->database, findings);
  if (!state->old_schema.empty()) {
    findings.push_back(
        {Level::kWarn, "version",
         fmt::format("its schema is {}, and the next start makes it {}; its jobs were "
                     "not looked at",
                     state->old_schema, schema_version()),
         "start penstockd on it, stop it, and check again"});
    return findings;
  }
  findings.push_back({Level::kOk, "version", fmt::format("schema {}", schema_version()), {}});
  look_at_rows(state->database, findings);
  look_at_orphans(state->database, findings);
  look_at_results(state->database, folder, findings);
  return findings;
}

namespace {

// What the answer was, as one more member or two.
std::string result_member(Database& database, const JobRecord& job) {
  if (job.result_in_file) {
    return ",\"result_file\":" + json_string("results/" + std::string(job.id.view()));
  }
  Statement body(database, "SELECT body FROM results WHERE seq=?");
  if (!body.with(seq_of(job.id)).step()) {
    return "";
  }
  const std::string_view bytes = body.bytes(0);
  return utf8_first_invalid(bytes) == bytes.npos
             ? ",\"result\":" + json_string(bytes)
             : ",\"result_base64\":" + json_string(base64(bytes));
}

}  // namespace

Status export_state(const std::string& folder, const std::function<bool(std::string_view)>& line) {
  auto state = IdleState::open(folder, false);
  if (!state) {
    return state.error();
  }
  if (!state->old_schema.empty()) {
    return older(folder, state->old_schema);
  }
  Statement rows(state->database, select_jobs("FROM jobs ORDER BY seq"));
  while (rows.step()) {
    JobRecord job;
    if (!read_row(rows, job)) {
      const DamagedRow damaged = read_damaged(rows);
      if (!line(JsonObject().text("id", damaged.id).text("error", "This row is damaged.").done() +
                "\n")) {
        return Error{"it cannot be written"};
      }
      continue;
    }
    std::string json = render(operator_view_of(job));
    json.insert(json.size() - 1, result_member(state->database, job));
    if (!line(json + "\n")) {
      return Error{"it cannot be written"};
    }
  }
  return rows.failed() ? Status(state->database.error("reading jobs")) : Status(Ok{});
}

}  // namespace penstock::queue
