// IssuedKeys: what penstock_keys names, as this process has read it. Each worker looks whether the
// file is another one before it looks a key up, once in a millisecond at most, and once a second
// where nobody asks: so a key that is revoked is refused from the next request on, and nothing is
// reloaded. A file that is wrong, or has gone, is told of once in the error log, and what was read
// before stays in force.
#pragma once

#include <sys/stat.h>

#include <string>
#include <vector>

#include "ngx_module/nginx.h"
#include "shared/keys/keys_file.h"

namespace penstock {

class IssuedKeys {
 public:
  explicit IssuedKeys(std::string_view path) : path_(path) {}

  // Reads the file, unless it is the one that was read. The Error says what is wrong with it.
  Status refresh();

  // In a worker: it looks each second from now on. Tells in the error log if the worker may not
  // read the file, as the root that started it may.
  void start(ngx_cycle_t* cycle) noexcept;

  // At the last look it could not be read, or was wrong: what was read before is in force.
  bool is_unreadable() const noexcept { return !told_.empty(); }

  // The key whose digest begins so, or nullptr. It lives until the next call.
  const keys::Key* find(std::span<const uint8_t> digest, ngx_log_t* log) noexcept;

 private:
  void look(ngx_log_t* log) noexcept;
  void check_readable(ngx_log_t* log) noexcept;

  std::string path_;
  struct stat seen_ {};  // of the file that was read last
  std::string told_;     // what was wrong last, in the error log
  ngx_msec_t looked_ms_ = 0;
  ngx_event_t timer_{};
  std::vector<keys::Key> keys_;
};

}  // namespace penstock
