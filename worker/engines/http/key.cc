#include "worker/engines/http/key.h"

#include <algorithm>
#include <utility>

#include "shared/base/secret_file.h"

namespace penstock::http_engine {
namespace {

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
  auto file = read_secret_file(path_, kMaxBytes);
  if (!file) {
    return Error{"key_file " + file.error().message};
  }
  seen_ = file->status;
  std::string text = std::move(file->text);
  text = trimmed(std::move(text));
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c < 127; });
  if (text.empty() || text.size() > kMaxBytes || !plain) {
    return Error{"key_file " + path_ + " must be one line: a key, or a header like x-api-key: KEY"};
  }
  if (file->is_too_open()) {
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
