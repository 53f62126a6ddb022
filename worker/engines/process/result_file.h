// ResultFile: a file that a program has left in its job's folder, and that becomes an answer.
//
// The program chose the name. It may be hostile, or carry out a hostile caller's wish. So nothing
// is followed that leads out of the folder (openat2(2): RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS).
// Nothing is opened but a plain file with one name: a hard link may be to somebody else's file, a
// FIFO would block, and a device may act when it is opened.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shared/base/fd.h"
#include "shared/base/result.h"

namespace penstock::process {

class ResultFile {
 public:
  // `name`: relative to the folder, or absolute and within it. An Error says why not.
  static Result<ResultFile> open(int folder, const std::string& folder_path, std::string_view name,
                                 int64_t most_bytes);

  int64_t size() const { return size_; }
  int64_t unread() const { return size_ - read_; }
  // The next bytes, into `out`, at most `most` of them. An Error: the file has become shorter, or
  // cannot be read.
  Status read(size_t most, std::string& out);

 private:
  ResultFile(Fd file, int64_t size) : file_(std::move(file)), size_(size) {}

  Fd file_;
  int64_t size_;
  int64_t read_ = 0;
};

}  // namespace penstock::process
