// PublishedFile: a file of one page that others map and read while it is written.
#pragma once

#include <string>
#include <string_view>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "worker/queue/link/listener.h"

namespace penstock::queue {

class PublishedFile {
 public:
  // Makes the file under another name and renames it into place. So no reader ever sees half a
  // page, and readers of an older one keep theirs. Those who may connect by `access` may read it.
  static Result<PublishedFile> create(const std::string& path, const Access& access,
                                      std::string_view page);
  PublishedFile(PublishedFile&&) = default;
  PublishedFile& operator=(PublishedFile&&) = delete;
  ~PublishedFile();  // removes the file

  // Overwrites the page. REQUIRES: all pages are of one length. The file is written, not mapped: a
  // file that someone cuts short must not kill the writer. A file that cannot be written grows
  // stale, as its page tells.
  void write(std::string_view page) const;

 private:
  PublishedFile(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  Fd fd_;  // invalid: moved from
};

// The bytes of a page, which has no pointers.
template <typename Page>
std::string_view bytes_of(const Page& page) {
  return {reinterpret_cast<const char*>(&page), sizeof page};
}

}  // namespace penstock::queue
