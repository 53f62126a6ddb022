#include "worker/engines/process/result_file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "shared/base/call_failed.h"
#include "shared/base/utf8.h"

namespace penstock::process {
namespace {

// Reached without following anything, and not opened yet.
Fd locate(int folder, const char* name) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return Fd(static_cast<int>(::syscall(SYS_openat2, folder, name, &how, sizeof how)));
}

const char* why_not(int error) {
  return error == EXDEV ? "it leads out" : error == ELOOP ? "it is a link" : std::strerror(error);
}

const char* what_is(mode_t mode) {
  return S_ISDIR(mode)    ? "it is a folder"
         : S_ISFIFO(mode) ? "it is a FIFO"
         : S_ISLNK(mode)  ? "it is a link"
                          : "it is no plain file";
}

Error refused(std::string_view name, const std::string& why) {
  constexpr size_t kShownBytes = 200;
  return {"the file \"" + one_line(name.substr(0, kShownBytes)) +
          "\" is outside of what may be sent, a plain file in the job's folder: " + why};
}

}  // namespace

Result<ResultFile> ResultFile::open(int folder, const std::string& folder_path,
                                    std::string_view name, int64_t most_bytes) {
  std::string_view inner = name;
  if (inner.starts_with(folder_path + "/")) {
    inner.remove_prefix(folder_path.size() + 1);
  }
  if (inner.empty() || inner.find('\0') != inner.npos) {
    return refused(name, "it is no name");
  }
  const Fd there = locate(folder, std::string(inner).c_str());
  if (!there.valid()) {
    return refused(name, why_not(errno));
  }
  struct stat is;
  if (::fstat(there.get(), &is) != 0) {
    return call_failed(std::string(name), "fstat");
  }
  if (!S_ISREG(is.st_mode)) {
    return refused(name, what_is(is.st_mode));
  }
  if (is.st_nlink > 1) {
    return refused(name, "it has other names as well, by hard links");
  }
  if (is.st_size > most_bytes) {
    return Error{"the file \"" + one_line(name) + "\" has " + std::to_string(is.st_size) +
                 " bytes; the most is " + std::to_string(most_bytes)};
  }
  Fd file(::open(("/proc/self/fd/" + std::to_string(there.get())).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    return call_failed(one_line(name), "open");
  }
  return ResultFile(std::move(file), is.st_size);
}

Status ResultFile::read(size_t most, std::string& out) {
  out.resize(static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(most), unread())));
  const ssize_t size = ::pread(file_.get(), out.data(), out.size(), read_);
  if (size <= 0) {
    return Error{size == 0 ? "the result's file became shorter while it was sent"
                           : call_failed("the result's file", "read").message};
  }
  out.resize(static_cast<size_t>(size));
  read_ += size;
  return Ok{};
}

}  // namespace penstock::process
