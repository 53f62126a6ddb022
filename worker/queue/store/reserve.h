// Reserve: room on disk that is kept for the ends of what was promised, as beanstalkd reserves it
// in its log when a job is put (walg.c, walresvput). A file that holds nothing, and is given up
// once the disk is full.
#pragma once

#include <cerrno>
#include <cstdint>

#include "shared/base/fd.h"
#include "worker/queue/store/file_calls.h"

namespace penstock::queue {

class Reserve {
 public:
  // STATE/reserve, `folder` being STATE; 0 bytes, or a file system that cannot: nothing is kept,
  // and it is always whole.
  Reserve(int folder, uint64_t bytes, FileCalls& calls)
      : bytes_(static_cast<off_t>(bytes)),
        calls_(calls),
        file_(bytes == 0 ? -1 : calls.open(folder, "reserve", O_RDWR | O_CREAT, 0600)),
        whole_(!file_.valid()) {}

  bool whole() const { return whole_; }
  uint64_t bytes() const { return whole_ ? static_cast<uint64_t>(bytes_) : 0; }
  // Takes the room, if the disk has twice as much: else it would be given up the next moment.
  // False: the disk does not have it.
  bool take() {
    if (!whole_) {
      whole_ =
          calls_.allocate(file_.get(), 2 * bytes_) == 0 || errno == EOPNOTSUPP || errno == ENOSYS;
      calls_.truncate(file_.get(), whole_ ? bytes_ : 0);
    }
    return whole_;
  }
  void give_up() {
    if (file_.valid()) {
      calls_.truncate(file_.get(), 0);
      whole_ = false;
    }
  }

 private:
  off_t bytes_;
  FileCalls& calls_;
  Fd file_;
  bool whole_;
};

}  // namespace penstock::queue
