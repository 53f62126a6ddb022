#include "shared/base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
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
constexpr int64_t kMsPerSecond = 1000;

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

void append_shown(std::string& out, std::string_view text, size_t most) {
  text = text.substr(0, utf8_complete_prefix(text.substr(0, most)));
  const size_t at = out.size();
  out.resize(at + text.size());
  out.resize(at + one_line(text, out.data() + at));
}

// Puts what stands there from `at` on in quotes, as a JSON string.
void quote_from(std::string& out, size_t at) {
  for (size_t i = out.find_first_of("\"\\", at); i != out.npos;
       i = out.find_first_of("\"\\", i + 2)) {
    out.insert(i, 1, '\\');
  }
  out.insert(at, 1, '"');
  out += '"';
}

// Most fields: printable, and nothing that has to be in quotes.
bool is_word(std::string_view text) {
  return text.size() <= kMostFieldBytes && std::all_of(text.begin(), text.end(), [](char c) {
           return c > ' ' && c < 0x7F && c != '"' && c != '\\' && c != '=';
         });
}

void append_number(std::string& out, int64_t number) {
  char digits[20];
  out.append(digits, std::to_chars(digits, std::end(digits), number).ptr);
}

void append_member(std::string& out, std::string_view name, std::string_view text, size_t most) {
  out.append(",\"").append(name).append("\":");
  const size_t at = out.size();
  append_shown(out, text, most);
  quote_from(out, at);
}

// `name=value`; in quotes, where a reader would take it for several.
void append_text_field(std::string& out, const LogField& field) {
  out.append(" ").append(field.name).append("=");
  if (field.is_number) {
    append_number(out, field.number);
    return;
  }
  if (is_word(field.text)) {
    out.append(field.text);
    return;
  }
  const size_t at = out.size();
  append_shown(out, field.text, kMostFieldBytes);
  if (out.find_first_of(" \"\\=", at) != out.npos) {
    quote_from(out, at);
  }
}

void append_json_field(std::string& out, const LogField& field) {
  if (field.is_number) {
    out.append(",\"").append(field.name).append("\":");
    append_number(out, field.number);
  } else if (is_word(field.text)) {
    out.append(",\"").append(field.name).append("\":\"").append(field.text).append("\"");
  } else {
    append_member(out, field.name, field.text, kMostFieldBytes);
  }
}

// Many lines are of one second.
void append_time(std::string& out, int64_t unix_ms) {
  thread_local int64_t second = -1;
  thread_local std::string text;
  if (unix_ms / kMsPerSecond != second) {
    second = unix_ms / kMsPerSecond;
    text = utc_text(second, "%Y-%m-%dT%H:%M:%S");
  }
  const auto ms = static_cast<int>(unix_ms % kMsPerSecond);
  const char digits[] = {'.', static_cast<char>('0' + ms / 100),
                         static_cast<char>('0' + ms / 10 % 10), static_cast<char>('0' + ms % 10),
                         'Z'};
  out.append(text).append(digits, sizeof digits);
}

void append_line(std::string& line, const LogSettings& settings, int64_t unix_ns, LogLevel level,
                 std::string_view text, LogFields fields) {
  const bool json = settings.format == LogFormat::kJson;
  line.append(json ? "{\"time\":\"" : "");
  append_time(line, unix_ns / kNsPerMs);
  if (json) {
    line.append("\",\"level\":\"").append(name_of(level));
    line.append("\",\"program\":\"").append(source_program).append("\"");
    if (!source_worker.empty()) {
      append_member(line, "worker", source_worker, kMostFieldBytes);
    }
    append_member(line, "message", text, kMostLogTextBytes);
  } else {
    line.append(" [").append(name_of(level)).append("] ");
    if (!source_worker.empty()) {
      line.append(source_program).append(" ");
      append_shown(line, source_worker, kMostFieldBytes);
      line.append(": ");
    }
    append_shown(line, text, kMostLogTextBytes);
  }
  for (const LogField& field : fields) {
    if (field.is_number || !field.text.empty()) {
      json ? append_json_field(line, field) : append_text_field(line, field);
    }
  }
  line.append(json ? "}" : "");
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
  std::string line;
  append_line(line, settings, unix_ns, level, text, fields);
  return line;
}

namespace {

std::string lost_line(uint64_t lost) {
  return log_line(log_settings(), realtime_ns(), LogLevel::kWarn,
                  "lines before this one were lost: the log was not read",
                  {{"lost", static_cast<int64_t>(lost)}}) +
         "\n";
}

// Lines that go out by one call.
class Lines {
 public:
  bool empty() const { return text_.empty(); }
  void add(std::string_view line) {
    if (text_.size() + line.size() > kMostBytes) {
      write();
    }
    text_ += line;
    ++count_;
  }
  // Behind a count of those that were lost, if some were.
  void write() {
    const uint64_t missing = lost_lines.exchange(0);
    if (missing > 0) {
      text_.insert(0, lost_line(missing));
    }
    if (!text_.empty() && !standard_error().write_at_once(text_)) {
      lost_lines += missing + count_;
    }
    text_.clear();
    count_ = 0;
  }

 private:
  static constexpr size_t kMostBytes = kMostLineBytes - 300;  // with room for that count
  std::string text_;
  uint64_t count_ = 0;
};

thread_local bool gathers = false;
thread_local Lines gathered;

}  // namespace

void write_log(LogLevel level, std::string_view text, LogFields fields) {
  if (!logs(level)) {
    return;
  }
  thread_local std::string line;
  line.clear();
  append_line(line, log_settings(), realtime_ns(), level, text, fields);
  gathered.add(line += '\n');
  if (!gathers || level >= LogLevel::kWarn) {
    gathered.write();
  }
}

void tell_lost_lines(int64_t now_ns) {
  if (lost_lines == 0 || now_ns - tried_ns < kNsPerSec) {
    return;
  }
  tried_ns = now_ns;
  Lines().write();
}

void LogTurns::end_turn(int64_t now_ns) {
  gathers = true;
  if (!gathered.empty()) {
    gathered.write();
  }
  tell_lost_lines(now_ns);
}

LogTurns::~LogTurns() {
  gathered.write();
  gathers = false;
}

}  // namespace penstock
