#include "worker/queue/text/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "shared/base/clock.h"
#include "shared/base/fd.h"
#include "shared/base/utf8.h"

namespace penstock::queue {
namespace {

constexpr size_t kMaxLineBytes = 2000;

std::string_view name_of(Level level) {
  switch (level) {
    case Level::kInfo:
      return " [info] ";
    case Level::kWarn:
      return " [warn] ";
    case Level::kError:
      return " [error] ";
  }
  return " ";
}

// Writes to stderr if it takes all of it at once, and says whether it did. A pipe or a terminal is
// opened anew for it, as the flags of ours are shared with whoever else has it; where that is
// forbidden it is written to if it seems ready.
bool write_at_once(std::string_view lines) {
  struct stat info {};
  const bool may_block =
      ::fstat(STDERR_FILENO, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode));
  const Fd own(may_block ? ::open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
                         : -1);
  ssize_t written = -1;
  if (own.valid()) {
    written = ::write(own.get(), lines.data(), lines.size());
  } else if (S_ISSOCK(info.st_mode)) {
    written = ::send(STDERR_FILENO, lines.data(), lines.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  } else if (pollfd ready{STDERR_FILENO, POLLOUT, 0}; ::poll(&ready, 1, 0) == 1) {
    written = ::write(STDERR_FILENO, lines.data(), lines.size());
  }
  return written == static_cast<ssize_t>(lines.size());
}

}  // namespace

void log(Level level, std::string_view text) {
  const time_t now = realtime_ns() / kNsPerSec;
  tm utc{};
  gmtime_r(&now, &utc);
  char stamp[32];
  const size_t size = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
  const std::string start(stamp, size);
  static std::atomic<uint64_t> lost{0};
  const uint64_t missing = lost.exchange(0);
  std::string lines;
  if (missing > 0) {
    lines = start + " [warn] " + std::to_string(missing) +
            " lines before this one were lost: the log was not read\n";
  }
  lines += start + std::string(name_of(level)) + one_line(text.substr(0, kMaxLineBytes)) + "\n";
  if (!write_at_once(lines)) {
    lost += missing + 1;
  }
}

void BoundedLog::line(Level level, std::string_view text, int64_t now_ns) {
  if (!bound_.admits(now_ns)) {
    return;
  }
  if (const uint64_t left_out = bound_.take_left_out(); left_out > 0) {
    log(level, std::to_string(left_out) + " more lines like these were left out");
  }
  log(level, text);
}

}  // namespace penstock::queue
