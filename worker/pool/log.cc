#include "worker/pool/log.h"

#include <unistd.h>

#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/utf8.h"

namespace penstock {

Log log_to_stderr(std::string worker) {
  return [worker = std::move(worker)](LogLevel level, std::string_view text) {
    constexpr const char* kNames[] = {"debug", "info", "warn", "error"};
    const std::string line = "penstock-worker " + worker + ": [" +
                             kNames[static_cast<size_t>(level)] + "] " + one_line(text) + "\n";
    // Whoever reads the log may be gone; there is nobody to tell.
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  };
}

void BoundedLog::line(LogLevel level, std::string_view text, int64_t now_ns) {
  if (bound_.admits(now_ns)) {
    say_left_out();
    log_(level, text.substr(0, kMaxLineBytes));
  }
}

void BoundedLog::say_left_out() {
  if (const uint64_t left_out = bound_.take_left_out(); left_out > 0) {
    log_(LogLevel::kInfo,
         std::to_string(left_out) + " lines like these were left out: the log is bounded");
  }
}

Log bounded(const Log& log) {
  return [logs = std::vector(4, BoundedLog(log, 10, 10))](LogLevel level,
                                                          std::string_view text) mutable {
    logs[static_cast<size_t>(level)].line(level, text, monotonic_ns());
  };
}

}  // namespace penstock
