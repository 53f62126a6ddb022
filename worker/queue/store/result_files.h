// ResultFiles: results too large for the database, one file each, named by the job's id.
//
// A file is written while its job runs. It is a result only once seal() has flushed it and its
// name: before that it may be cut off anywhere. A file that no job tells of is removed.
#pragma once

#include <dirent.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "shared/base/fd.h"
#include "shared/base/job_id.h"
#include "shared/base/mutex.h"
#include "shared/base/result.h"
#include "worker/queue/store/file_calls.h"

namespace penstock::queue {

class ResultFiles {
 public:
  // In `folder`, made if it is not there. Files are readable by `group` (-1: by nobody else).
  static Result<ResultFiles> open(const std::string& folder, gid_t group,
                                  FileCalls& calls = FileCalls::system());

  std::string path(const JobId& id) const { return folder_ + "/" + std::string(id.view()); }
  // Writes at `offset`; 0 begins anew. At any other offset the file must be there and that long:
  // what was lost must not become zeros.
  Status write(const JobId& id, uint64_t offset, std::string_view bytes);
  // It is `size` bytes long, and on disk. Errors: a name or a size that is not there. A file whose
  // flush has failed is copied to another, as a second flush would say nothing of what the first
  // has dropped.
  Status seal(const JobId& id, uint64_t size);
  // Removes the file, if it is there. Any thread may call it.
  void remove(const JobId& id);

  // A look at all files, some at a time, while others come and go.
  class Round {
   public:
    // Shows up to `most` more files; `keep` says which stay, and nothing is kept that is named
    // otherwise than a job. False: those were all.
    bool look(size_t most, const std::function<bool(const JobId&)>& keep);

   private:
    friend class ResultFiles;
    struct Close {
      void operator()(DIR* folder) const { ::closedir(folder); }
    };
    Round(ResultFiles& files, DIR* folder) : files_(&files), folder_(folder) {}
    ResultFiles* files_;
    std::unique_ptr<DIR, Close> folder_;
  };
  Round round();

 private:
  ResultFiles(std::string folder, Fd directory, gid_t group, FileCalls& calls)
      : folder_(std::move(folder)),
        directory_(std::move(directory)),
        group_(group),
        calls_(&calls) {}
  bool is_doubtful(const std::string& name) const;
  void set_doubtful(const std::string& name, bool is);
  Fd make(const std::string& name) const;
  Status write_all(int file, const std::string& path, uint64_t offset,
                   std::string_view bytes) const;
  Status copy(const JobId& id, const Fd& from) const;

  std::string folder_;
  Fd directory_;
  gid_t group_;
  FileCalls* calls_;
  // Flushed in vain. Files are removed by another thread than they are sealed by.
  struct Doubtful {
    Mutex mutex;
    std::set<std::string> names GUARDED_BY(mutex);
  };
  std::unique_ptr<Doubtful> doubtful_ = std::make_unique<Doubtful>();
};

}  // namespace penstock::queue
