#include "worker/queue/log.h"

#include <time.h>
#include <unistd.h>

#include <string>

#include "shared/base/clock.h"

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

}  // namespace

void log(Level level, std::string_view text) {
  const time_t now = realtime_ns() / kNsPerSec;
  tm utc{};
  gmtime_r(&now, &utc);
  char stamp[32];
  const size_t size = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
  std::string line(stamp, size);
  line.append(name_of(level));
  for (const char c : text.substr(0, kMaxLineBytes)) {
    line.push_back(static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c);
  }
  line.push_back('\n');
  // A full or closed stderr loses the line; there is nowhere left to say so.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

void LogLimit::log(Level level, std::string_view text, int64_t now_ns) {
  if (const int64_t second = now_ns / kNsPerSec; second != second_) {
    second_ = second;
    lines_ = 0;
    if (left_out_ > 0) {
      queue::log(level, std::to_string(left_out_) + " more lines like these were left out");
      left_out_ = 0;
    }
  }
  if (lines_ >= kPerSecond) {
    ++left_out_;
    return;
  }
  ++lines_;
  queue::log(level, text);
}

}  // namespace penstock::queue
