#include "worker/pool/log.h"

#include <vector>

#include "shared/base/clock.h"

namespace penstock {

Log log_to_stderr() {
  return [](LogLevel level, std::string_view text) { write_log(level, text); };
}

void BoundedLog::line(LogLevel level, std::string_view text, int64_t now_ns) {
  line(
      level, [&] { return std::string(text.substr(0, kMaxLineBytes)); }, now_ns);
}

void BoundedLog::line(LogLevel level, const std::function<std::string()>& text, int64_t now_ns) {
  if (bound_.admits(now_ns)) {
    say_left_out();
    log_(level, std::string_view(text()).substr(0, kMaxLineBytes));
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
