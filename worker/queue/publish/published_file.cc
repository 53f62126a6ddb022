#include "worker/queue/publish/published_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace penstock::queue {

Result<PublishedFile> PublishedFile::create(const std::string& path, const Access& access,
                                            std::string_view page) {
  const std::string fresh = path + ".new";
  ::unlink(fresh.c_str());
  Fd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) {
    return Error{fresh + " cannot be made: " + std::strerror(errno)};
  }
  PublishedFile file(path, std::move(fd));
  file.write(page);
  // Readers need no right to write.
  if (Status granted = grant(fresh, {(access.mode & 0444U) | 0200U, access.group}); !granted) {
    return granted.error();
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0) {
    return Error{path + " cannot be replaced: " + std::strerror(errno)};
  }
  return file;
}

PublishedFile::~PublishedFile() {
  if (fd_.valid()) {
    ::unlink(path_.c_str());
  }
}

void PublishedFile::write(std::string_view page) const {
  [[maybe_unused]] const ssize_t n = ::pwrite(fd_.get(), page.data(), page.size(), 0);
}

}  // namespace penstock::queue
