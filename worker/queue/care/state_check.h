// A state, or a backup of one, looked at while no penstockd uses it (store/FORMAT.md says what lies
// there). Nothing is changed.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "worker/queue/care/finding.h"
#include "worker/queue/store/job_record.h"
#include "worker/queue/store/sqlite.h"

namespace penstock::queue {

// The database of a state that nobody uses, and the lock that keeps it so.
struct IdleState {
  Fd lock;
  Database database;
  std::string old_schema;  // empty: this penstockd's; else the next start brings it up to date

  // Errors: a penstockd uses it; there is no database of ours in it; it is of a newer penstockd.
  // `to_write`: else it is only read, and what lies there stays as it is.
  static Result<IdleState> open(const std::string& folder, bool to_write);
};

// All that can be found out: pages, versions, rows that cannot be read, rows and files without each
// other, sizes, modes, and in a backup the digests of its files. kBad: something is lost or would
// be; kWarn: the next start puts it right, or repair_state() does. An Error: it cannot be looked
// at.
Result<std::vector<Finding>> check_state(const std::string& folder);

// Puts right what can be: indexes are made anew, rows and files that belong to nothing go, jobs
// whose results are gone end as failed, the log is emptied. What was done is told, as kOk; what
// cannot be, as kBad.
Result<std::vector<Finding>> repair_state(const std::string& folder);

// A copy of the state in another folder, which is not there yet: the database and the secret, and
// the results as the same files. For repairs.
Status copy_state(const std::string& from, const std::string& to);

// Every job, in the order it came: as operators see it (JSON), with "result" (or "result_base64",
// or "result_file", a path in the state). An Error: it broke off.
Status export_state(const std::string& folder, const std::function<bool(std::string_view)>& line);

}  // namespace penstock::queue
