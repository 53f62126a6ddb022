// Scratch: the folders of a worker's programs.
//
//     BASE/penstock-WORKER.XXXXXX/     one a worker, locked while it lives (flock)
//         0/                           one a slot
//             job/                     a program's working folder, and each job's: emptied after it
//             tmp/                     its TMPDIR: emptied when the program starts
//
// A worker that is killed leaves its folder behind. The next worker of that name removes it, as its
// lock is free.
#pragma once

#include <optional>
#include <string>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "worker/engines/process/credentials.h"

namespace penstock::process {

class Scratch {
 public:
  static Result<Scratch> open(const std::string& base, const std::string& worker);
  ~Scratch();
  Scratch(Scratch&&) = default;
  Scratch& operator=(Scratch&&) = delete;

  const std::string& path() const { return path_; }

 private:
  Scratch(std::string path, Fd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  Fd lock_;
};

class SlotFolder {
 public:
  // Belongs to that user, where there is one.
  static Result<SlotFolder> create(const Scratch& scratch, size_t slot,
                                   const std::optional<Credentials>& owner);

  const std::string& job() const { return job_; }
  const std::string& tmp() const { return tmp_; }
  int job_fd() const { return job_fd_.get(); }

  // A new file in the job's folder, which its program can read; its path.
  Result<std::string> put(const std::string& name, std::string_view bytes);
  // On disk, of both. O(files).
  int64_t used_bytes() const;
  // No link is followed out of the folder. Errors are passed over: what cannot be removed stays.
  void empty_job();
  void empty_tmp();

 private:
  std::string job_;
  std::string tmp_;
  Fd job_fd_;
  std::optional<Credentials> owner_;
};

}  // namespace penstock::process
