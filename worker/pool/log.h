// Log: how an engine tells the operator something.
//
// A line on standard error, where penstockd's own lines go:
//
//     penstock-worker NAME: [warn] text
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "shared/base/log_bound.h"

namespace penstock {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError };

using Log = std::function<void(LogLevel, std::string_view text)>;

// Writes each line whole, by one call. What is no printable UTF-8 is shown as '?' (one_line()).
Log log_to_stderr(std::string worker);

// A log with a bound on the lines that a peer can cause: `burst` at once and then `per_second`.
class BoundedLog {
 public:
  static constexpr size_t kMaxLineBytes = 1024;  // what is longer is cut

  BoundedLog(Log log, double burst, double per_second)
      : log_(std::move(log)), bound_(burst, per_second) {}

  void line(LogLevel level, std::string_view text, int64_t now_ns);
  // Says how many lines were left out, if any were. line() says so too, before the next line.
  void say_left_out();

 private:
  Log log_;
  LogBound bound_;
};

// A bound of its own for each level: ten lines a second.
Log bounded(const Log& log);

}  // namespace penstock
