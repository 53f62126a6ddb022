#include "worker/engines/http/key.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "shared/base/fd.h"

namespace penstock::http_engine {
namespace {

constexpr mode_t kTooLoose = 0777 & ~mode_t{0640};

bool same(const struct stat& a, const struct stat& b) {
  return a.st_ino == b.st_ino && a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
         a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) {
    text.pop_back();
  }
  return text;
}

}  // namespace

Result<Key> Key::load(const std::string& path, const Log& log) {
  Key key;
  key.path_ = path;
  if (!path.empty()) {
    if (const Status read = key.read(log); !read) {
      return read.error();
    }
  }
  return key;
}

Status Key::read(const Log& log) {
  const Fd file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(kMaxBytes + 1, '\0');
  const ssize_t size = file.valid() ? ::read(file.get(), text.data(), text.size()) : -1;
  if (size < 0 || ::fstat(file.get(), &seen_) != 0) {
    return Error{"key_file " + path_ + " cannot be read: " + std::strerror(errno)};
  }
  text.resize(static_cast<size_t>(size));
  text = trimmed(text);
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c < 127; });
  if (text.empty() || text.size() > kMaxBytes || !plain) {
    return Error{"key_file " + path_ + " must be one line: a key, or a header like x-api-key: KEY"};
  }
  if ((seen_.st_mode & kTooLoose) != 0) {
    log(LogLevel::kWarn, path_ +
                             " is open to more than its owner and readers of its group; whoever "
                             "reads it can use the key: chmod 0600 " +
                             path_);
  }
  header_ = text.find(": ") == text.npos ? "Authorization: Bearer " + text : text;
  return Ok{};
}

const std::string& Key::header(int64_t now_ns, const Log& log) {
  if (path_.empty() || now_ns < looked_ns_ + kLookNs) {
    return header_;
  }
  looked_ns_ = now_ns;
  struct stat now {};
  if (::stat(path_.c_str(), &now) == 0 && !same(now, seen_)) {
    if (const Status again = read(log); !again) {
      seen_ = now;
      log(LogLevel::kError, again.error().message + "; the last key stays in force");
    }
  }
  return header_;
}

}  // namespace penstock::http_engine
