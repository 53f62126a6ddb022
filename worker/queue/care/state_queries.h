// What may not fit together in a state: each with the rows it is in, and what puts it right.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "shared/base/result.h"
#include "worker/queue/store/sqlite.h"

namespace penstock::queue {

struct Mismatch {
  const char* about;
  const char* what;  // behind a number
  const char* from;  // FROM ... WHERE: those rows
  bool loses;        // something that was promised is not there
  const char* repair;
  const char* done;  // behind a number
};

// In the order in which they are repaired.
constexpr Mismatch kMismatches[] = {
    {"results", "answers belong to no job", "results WHERE seq NOT IN (SELECT seq FROM jobs)",
     false, "DELETE FROM results WHERE seq NOT IN (SELECT seq FROM jobs)",
     "answers that belonged to no job are removed"},
    {"results", "answers are not there, or not whole",
     "jobs LEFT JOIN results USING(seq) WHERE status=3 AND result_in_file=0 AND result_bytes>0"
     " AND ifnull(length(body), -1)<>result_bytes",
     true,
     "UPDATE jobs SET status=4, key=NULL, earlier=NULL, http_status=502, result_bytes=0,"
     " error_code=CAST('engine_failed' AS BLOB),"
     " error=CAST('Its result is lost.' AS BLOB) WHERE seq IN (SELECT seq FROM jobs LEFT JOIN"
     " results USING(seq) WHERE status=3 AND result_in_file=0 AND result_bytes>0"
     " AND ifnull(length(body), -1)<>result_bytes)",
     "jobs whose answers are gone have failed"},
    {"deliveries", "webhooks belong to no job",
     "deliveries WHERE seq NOT IN (SELECT seq FROM jobs)", false,
     "DELETE FROM deliveries WHERE seq NOT IN (SELECT seq FROM jobs)",
     "webhooks that belonged to no job are dropped"},
    {"lists", "entries belong to no job that has ended so",
     "ended WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE seq=job AND owner=whose AND status=how)",
     false,
     "DELETE FROM ended WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE seq=job AND owner=whose AND"
     " status=how)",
     "entries of lists that belonged to no job are removed"},
    {"lists", "entries of those that ended lately belong to no such job",
     "recently_ended WHERE job NOT IN (SELECT seq FROM jobs WHERE status>=3)", false,
     "DELETE FROM recently_ended WHERE job NOT IN (SELECT seq FROM jobs WHERE status>=3)",
     "entries of those that ended lately are removed"},
    {"lists", "jobs that have ended are in no list of their owners",
     "jobs WHERE status>=3 AND seq NOT IN (SELECT job FROM recently_ended) AND NOT EXISTS"
     " (SELECT 1 FROM ended WHERE whose=owner AND how=status AND job=seq)",
     true,
     "INSERT OR IGNORE INTO ended SELECT owner, status, seq FROM jobs WHERE status>=3 AND seq NOT "
     "IN"
     " (SELECT job FROM recently_ended)",
     "jobs are in the lists of their owners again"},
};

// id, result_bytes of each job whose result is a file.
constexpr char kFilesQuery[] = "SELECT id, result_bytes FROM jobs WHERE result_in_file=1";

// Whether the file of that job's result is there, and that long.
bool is_whole(const std::string& folder, std::string_view id, int64_t bytes);
// The names of files in `results` that no job tells of.
void for_each_stray(Database& database, const std::string& folder,
                    const std::function<void(const std::string&)>& each);
inline Error older(const std::string& folder, const std::string& version) {
  return Error{folder + "/jobs.db has schema " + version +
               ", of an older penstockd: start this one on it once, and stop it"};
}
Status secret_is_whole(const std::string& folder);

}  // namespace penstock::queue
