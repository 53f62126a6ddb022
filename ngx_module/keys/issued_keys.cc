#include "ngx_module/keys/issued_keys.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "shared/base/fd.h"

namespace penstock {
namespace {

constexpr ngx_msec_t kLookMs = 1000;

bool is_same(const struct stat& a, const struct stat& b) noexcept {
  const auto same_time = [](const timespec& x, const timespec& y) noexcept {
    return x.tv_sec == y.tv_sec && x.tv_nsec == y.tv_nsec;
  };
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         same_time(a.st_mtim, b.st_mtim) && same_time(a.st_ctim, b.st_ctim);
}

Error failed(const std::string& path) {
  return Error{path + " cannot be read: " + std::strerror(errno), ErrorKind::kGone};
}

// `file` becomes what is known of it.
Result<std::string> read_file(const std::string& path, struct stat& file) {
  // A pipe in its place must not hold up the process.
  const Fd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid() || ::fstat(fd.get(), &file) != 0) {
    return failed(path);
  }
  if (!S_ISREG(file.st_mode)) {
    return Error{path + " is no plain file"};
  }
  if (static_cast<size_t>(file.st_size) > keys::kMostFileBytes) {
    return Error{path + " is larger than " + std::to_string(keys::kMostFileBytes >> 20) + " MiB"};
  }
  std::string text(static_cast<size_t>(file.st_size), '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = ::read(fd.get(), text.data() + size, text.size() - size);
    if (n <= 0) {
      return n == 0 ? Error{path + " was cut short while it was read"} : failed(path);
    }
    size += static_cast<size_t>(n);
  }
  return text;
}

}  // namespace

Status IssuedKeys::refresh() {
  struct stat now {};
  if (::stat(path_.c_str(), &now) != 0) {
    seen_ = {};
    return failed(path_);
  }
  if (is_same(now, seen_)) {
    return Ok{};
  }
  // What could not be read may be readable the next time: only what was read is not read again.
  seen_ = {};
  const auto text = read_file(path_, now);
  if (!text) {
    return text.error();
  }
  seen_ = now;
  auto keys = keys::read_keys(*text);
  if (!keys) {
    return Error{path_ + ": " + keys.error().message};
  }
  keys_ = *std::move(keys);
  told_.clear();
  return Ok{};
}

void IssuedKeys::look(ngx_log_t* log) noexcept {
  if (looked_ms_ == ngx_current_msec) {
    return;
  }
  looked_ms_ = ngx_current_msec;
  const Status fresh = refresh();
  if (!fresh && fresh.error().message != told_) {
    told_ = fresh.error().message;
    ngx_log_error(NGX_LOG_ERR, log, 0, "penstock_keys: %s; the keys read before stay in force",
                  told_.c_str());
  }
}

const keys::Key* IssuedKeys::find(std::span<const uint8_t> digest, ngx_log_t* log) noexcept {
  look(log);
  return keys::find_key(keys_, digest);
}

void IssuedKeys::start(ngx_cycle_t* cycle) noexcept {
  check_readable(cycle->log);
  timer_ = {};
  timer_.data = this;
  timer_.log = cycle->log;
  timer_.cancelable = 1;
  timer_.handler = [](ngx_event_t* timer) {
    static_cast<IssuedKeys*>(timer->data)->look(timer->log);
    ngx_add_timer(timer, kLookMs);
  };
  ngx_add_timer(&timer_, kLookMs);
}

void IssuedKeys::check_readable(ngx_log_t* log) noexcept {
  if (::access(path_.c_str(), R_OK) != 0 && errno != ENOENT) {
    ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                  "penstock_keys: \"%s\" cannot be read by Nginx's workers, which would not see "
                  "what is issued or revoked: let their group read it",
                  path_.c_str());
    told_ = failed(path_).message;
  }
}

}  // namespace penstock
