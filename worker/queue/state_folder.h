// StateFolder: the folder where promised jobs live, and whose it is.
//
//   STATE/lock     held by the one penstockd that uses it
//   STATE/secret   under which owners and keys are hashed
//   STATE/jobs.db  the database, with -wal beside it
//   STATE/results  large results
#pragma once

#include <sys/types.h>

#include <string>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "shared/limit/siphash.h"

namespace penstock::queue {

struct StateFolder {
  std::string path;  // from the root on, as Nginx is told of results in it
  Fd lock;
  limit::Secret secret;
  gid_t group = static_cast<gid_t>(-1);  // of those who may read results

  // Makes what is missing. Errors: another penstockd has it; no such group; a secret that is not
  // whole.
  static Result<StateFolder> open(const std::string& path, const std::string& group);
  // The names of its files are on disk, too.
  Status flush() const;
};

}  // namespace penstock::queue
