// Log: how an engine tells the operator something: a line where penstockd's own go
// (shared/base/log.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "shared/base/log.h"
#include "shared/base/log_bound.h"

namespace penstock {

using Log = std::function<void(LogLevel, std::string_view text)>;

Log log_to_stderr();

// A log with a bound on the lines that a peer can cause: `burst` at once and then `per_second`.
class BoundedLog {
 public:
  static constexpr size_t kMaxLineBytes = 1024;  // what is longer is cut

  BoundedLog(Log log, double burst, double per_second)
      : log_(std::move(log)), bound_(burst, per_second) {}

  void line(LogLevel level, std::string_view text, int64_t now_ns);
  // The same, of a text that is only made if there is a place for it.
  void line(LogLevel level, const std::function<std::string()>& text, int64_t now_ns);
  // Says how many lines were left out, if any were. line() says so too, before the next line.
  void say_left_out();

 private:
  Log log_;
  LogBound bound_;
};

// A bound of its own for each level: ten lines a second.
Log bounded(const Log& log);

}  // namespace penstock
