#include "worker/pool/log.h"

#include <unistd.h>

#include <array>
#include <utility>

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

Log bounded(Log log) {
  struct Second {
    int64_t second = -1;
    uint32_t lines = 0;
    uint64_t left_out = 0;
  };
  return [log = std::move(log), seconds = std::array<Second, 4>()](LogLevel level,
                                                                   std::string_view text) mutable {
    Second& now = seconds[static_cast<size_t>(level)];
    const int64_t second = monotonic_ns() / kNsPerSec;
    if (now.second != second) {
      const uint64_t left_out = std::exchange(now.left_out, 0);
      now.second = second;
      now.lines = 0;
      if (left_out > 0) {
        log(level, std::to_string(left_out) + " lines more were left out");
      }
    }
    if (now.lines < kMostLines) {
      ++now.lines;
      log(level, text);
    } else {
      ++now.left_out;
    }
  };
}

}  // namespace penstock
