#include "shared/base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "shared/base/clock.h"
#include "shared/base/fd.h"
#include "shared/base/mutex.h"
#include "shared/base/utc.h"
#include "shared/base/utf8.h"

namespace penstock {
namespace {

constexpr std::array<std::string_view, 4> kLevels = {"debug", "info", "warn", "error"};
constexpr std::array<std::string_view, 2> kFormats = {"text", "json"};
constexpr size_t kMostFieldBytes = 200;

// A process has one standard error.
std::string source_program = "penstock";
std::string source_worker;
std::atomic<LogLevel> least_level{LogLevel::kInfo};
std::atomic<LogFormat> written_format{LogFormat::kText};
std::atomic<uint64_t> lost_lines{0};
std::atomic<int64_t> tried_ns{0};  // to tell of these

// Standard error, written to without waiting. A pipe or a terminal is opened anew for it, as the
// flags of ours are shared with whoever else has it; where that is forbidden it is written to if it
// seems ready.
class StandardError {
 public:
  // Whether it took all of it.
  bool write_at_once(std::string_view lines) {
    const MutexLock lock(mutex_);
    look();
    ssize_t written = -1;
    if (own_.valid()) {
      written = ::write(own_.get(), lines.data(), lines.size());
    } else if (S_ISSOCK(file_.st_mode)) {
      written = ::send(STDERR_FILENO, lines.data(), lines.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if (pollfd ready{STDERR_FILENO, POLLOUT, 0}; ::poll(&ready, 1, 0) == 1) {
      written = ::write(STDERR_FILENO, lines.data(), lines.size());
    }
    return written == static_cast<ssize_t>(lines.size());
  }

 private:
  // It may be another file than it was.
  void look() REQUIRES(mutex_) {
    struct stat now {};
    if (::fstat(STDERR_FILENO, &now) == 0 &&
        (now.st_ino != file_.st_ino || now.st_dev != file_.st_dev)) {
      own_.reset(S_ISFIFO(now.st_mode) || S_ISCHR(now.st_mode)
                     ? ::open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
                     : -1);
      file_ = now;
    }
  }

  Mutex mutex_;
  Fd own_ GUARDED_BY(mutex_);
  struct stat file_ GUARDED_BY(mutex_) {};
};

StandardError& standard_error() {
  static StandardError once;
  return once;
}

template <typename Names, typename Value>
std::optional<Value> named(const Names& names, std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  return found == names.end() ? std::optional<Value>() : static_cast<Value>(found - names.begin());
}

// The inside of a JSON string. REQUIRES: one_line() has been over `text`.
void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
    }
    out += c;
  }
}

std::string shown(std::string_view text, size_t most) {
  return one_line(text.substr(0, utf8_complete_prefix(text.substr(0, most))));
}

void append_quoted(std::string& out, std::string_view text) {
  out += '"';
  append_escaped(out, text);
  out += '"';
}

void append_member(std::string& out, std::string_view name, std::string_view text) {
  out.append(",\"").append(name).append("\":");
  append_quoted(out, text);
}

// `name=value`; in quotes, where a reader would take it for several.
void append_text_field(std::string& out, const LogField& field) {
  out.append(" ").append(field.name).append("=");
  if (field.is_number) {
    out += std::to_string(field.number);
    return;
  }
  const std::string text = shown(field.text, kMostFieldBytes);
  text.find_first_of(" \"\\=") == text.npos ? void(out += text) : append_quoted(out, text);
}

void append_json_field(std::string& out, const LogField& field) {
  if (field.is_number) {
    out.append(",\"").append(field.name).append("\":").append(std::to_string(field.number));
  } else {
    append_member(out, field.name, shown(field.text, kMostFieldBytes));
  }
}

}  // namespace

std::string_view name_of(LogLevel level) noexcept { return kLevels[static_cast<size_t>(level)]; }
std::string_view name_of(LogFormat format) noexcept {
  return kFormats[static_cast<size_t>(format)];
}
std::optional<LogLevel> log_level_named(std::string_view name) noexcept {
  return named<decltype(kLevels), LogLevel>(kLevels, name);
}
std::optional<LogFormat> log_format_named(std::string_view name) noexcept {
  return named<decltype(kFormats), LogFormat>(kFormats, name);
}

void set_log_source(std::string program, std::string worker) {
  source_program = std::move(program);
  source_worker = std::move(worker);
}

void set_log(LogSettings settings) noexcept {
  least_level = settings.level;
  written_format = settings.format;
}

LogSettings log_settings() noexcept { return {least_level, written_format}; }

bool logs(LogLevel level) noexcept { return level >= least_level; }

std::string log_line(const LogSettings& settings, int64_t unix_ns, LogLevel level,
                     std::string_view text, LogFields fields) {
  const std::string time = iso_time(unix_ns / kNsPerMs);
  const std::string words = shown(text, kMostLogTextBytes);
  const bool json = settings.format == LogFormat::kJson;
  std::string line;
  if (json) {
    line.append("{\"time\":\"").append(time).append("\",\"level\":\"").append(name_of(level));
    line.append("\",\"program\":\"").append(source_program).append("\"");
    if (!source_worker.empty()) {
      append_member(line, "worker", shown(source_worker, kMostFieldBytes));
    }
    append_member(line, "message", words);
  } else {
    line.append(time).append(" [").append(name_of(level)).append("] ");
    if (!source_worker.empty()) {
      line.append(source_program).append(" ").append(shown(source_worker, kMostFieldBytes)) += ": ";
    }
    line += words;
  }
  for (const LogField& field : fields) {
    if (field.is_number || !field.text.empty()) {
      json ? append_json_field(line, field) : append_text_field(line, field);
    }
  }
  return json ? line + "}" : line;
}

namespace {

std::string lost_line(const LogSettings& settings, int64_t unix_ns, uint64_t lost) {
  return log_line(settings, unix_ns, LogLevel::kWarn,
                  "lines before this one were lost: the log was not read",
                  {{"lost", static_cast<int64_t>(lost)}}) +
         "\n";
}

}  // namespace

void write_log(LogLevel level, std::string_view text, LogFields fields) {
  if (!logs(level)) {
    return;
  }
  const LogSettings settings = log_settings();
  const int64_t now_ns = realtime_ns();
  const uint64_t missing = lost_lines.exchange(0);
  std::string lines;
  if (missing > 0) {
    lines = lost_line(settings, now_ns, missing);
  }
  lines += log_line(settings, now_ns, level, text, fields) + "\n";
  if (!standard_error().write_at_once(lines)) {
    lost_lines += missing + 1;
  }
}

void tell_lost_lines(int64_t now_ns) {
  if (lost_lines == 0 || now_ns - tried_ns < kNsPerSec) {
    return;
  }
  tried_ns = now_ns;
  const uint64_t missing = lost_lines.exchange(0);
  if (!standard_error().write_at_once(lost_line(log_settings(), realtime_ns(), missing))) {
    lost_lines += missing;
  }
}

}  // namespace penstock
