// A row of the table `jobs`, and what it says of a job.
//
// Its key is sequence_of(the job's id): later jobs are appended behind, and no index is needed to
// find one. What is read back is hostile until parsed.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "worker/queue/store/job_record.h"
#include "worker/queue/store/sqlite.h"

namespace penstock::queue {

inline int64_t seq_of(const JobId& id) { return static_cast<int64_t>(sequence_of(id)); }

inline std::string_view as_bytes(const limit::Hash128& hash) {
  return {reinterpret_cast<const char*>(&hash), sizeof hash};
}
// False: it is none.
inline bool read_hash(std::string_view bytes, limit::Hash128& hash) {
  if (bytes.size() != sizeof hash) {
    return false;
  }
  std::memcpy(static_cast<void*>(&hash), bytes.data(), sizeof hash);
  return true;
}

// SELECT of the columns that the functions below read; `from`: "FROM jobs", and so on.
std::string select_jobs(std::string_view from);

// False: it cannot be parsed.
bool read_row(Statement& row, JobRecord& job);
// The only row, if there is one that can be parsed. False: the database failed.
bool read_one(Statement& rows, std::optional<JobRecord>& job);

// A row that cannot be parsed.
struct DamagedRow {
  int64_t seq = 0;
  std::string owner;  // whatever stands there
  std::string id;     // likewise
};
DamagedRow read_damaged(Statement& row);

}  // namespace penstock::queue
