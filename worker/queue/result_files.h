// ResultFiles: results too large for the database, one file each, named by the job's id.
//
// A file is written while its job runs, and is a result only once seal() has flushed it and its
// name: before that it may be cut off anywhere, and what nobody tells of is removed at the start.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "shared/base/fd.h"
#include "shared/base/job_id.h"
#include "shared/base/result.h"

namespace penstock::queue {

class ResultFiles {
 public:
  // In `folder`, made if it is not there. Files are readable by `group` (-1: by nobody else).
  // `flush` is fdatasync(2), or a test's.
  static Result<ResultFiles> open(const std::string& folder, gid_t group,
                                  int (*flush)(int) = ::fdatasync);

  std::string path(const JobId& id) const { return folder_ + "/" + std::string(id.view()); }
  // Writes at `offset`; 0 begins anew.
  Status write(const JobId& id, uint64_t offset, std::string_view bytes);
  // It is `size` bytes long, and on disk. Errors: a name or a size that is not there. A file whose
  // flush has failed is copied to another, as a second flush would say nothing of what the first
  // has dropped.
  Status seal(const JobId& id, uint64_t size);
  // Gone, if it was there.
  void remove(const JobId& id);
  // Removes what `keep` does not want. Returns the bytes of the rest.
  uint64_t sweep(const std::function<bool(const JobId&)>& keep);

 private:
  ResultFiles(std::string folder, Fd directory, gid_t group, int (*flush)(int))
      : folder_(std::move(folder)),
        directory_(std::move(directory)),
        group_(group),
        flush_(flush) {}
  Fd make(const std::string& name, int flags) const;
  Status copy(const JobId& id, const Fd& from) const;

  std::string folder_;
  Fd directory_;
  gid_t group_;
  int (*flush_)(int);
  std::set<std::string> doubtful_;  // flushed in vain
};

}  // namespace penstock::queue
