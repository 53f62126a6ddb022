#include "worker/pool/log.h"

#include <unistd.h>

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

}  // namespace penstock
