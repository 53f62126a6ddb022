// StateFolder: the folder where promised jobs live, and whose it is.
//
//   STATE/lock     held by the one penstockd that uses it
//   STATE/unclean  there while it does, and after a crash: the id of that boot
//   STATE/reserve  room on disk that is kept for ends (reserve.h)
//   STATE/wipe     there while what was purged is yet to be wiped
//   STATE/secret   the secret that owners and keys are hashed under
//   STATE/jobs.db  the database, with -wal beside it
//   STATE/results  large results
#pragma once

#include <sys/types.h>

#include <string>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "shared/limit/siphash.h"
#include "worker/queue/store/file_calls.h"

namespace penstock::queue {

struct StateFolder {
  std::string path;  // from the root on, as Nginx is told of results in it
  Fd lock;
  Fd directory;
  FileCalls* calls = nullptr;
  // Its last penstockd did not close it, and the machine has started anew since, so what the kernel
  // had not written is lost; or somebody wants the folder checked.
  bool unclean = false;
  bool to_wipe = false;  // there was its mark
  limit::Secret secret;
  gid_t group = static_cast<gid_t>(-1);  // of those who may read results

  // Makes what is missing. `lock`: that is held already. Errors: another penstockd has it; no such
  // group; a secret that is not whole.
  static Result<StateFolder> open(const std::string& path, const std::string& group,
                                  FileCalls& calls = FileCalls::system(), Fd lock = {});
  // The secret in that file, without which nothing is made. Errors: it is damaged, or not there.
  static Result<limit::Secret> read_secret(const std::string& path);
  // note_open(): the folder is in use. note_closed(): it is not any more, and all of it is on disk.
  void note_open() const;
  void note_closed() const;
  // note_purge(): what is purged from now on is to be wiped, also by the next penstockd; on disk
  // when it returns. note_wiped(): all of it is.
  void note_purge() const;
  void note_wiped() const;
  // The names of its files are on disk, too, and its own.
  Status flush() const;
};

}  // namespace penstock::queue
