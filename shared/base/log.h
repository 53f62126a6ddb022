// The log of a process: lines on standard error, where systemd and `make run` collect them.
//
//     2026-11-22T10:20:30.123Z [warn] worker gpu: was killed
//     {"time":"2026-11-22T10:20:30.123Z","level":"warn","program":"penstockd","message":"…"}
//
// Nobody waits for the reader: a pipe, a socket or a terminal that takes no more loses lines. They
// are counted, and the next line that it takes comes behind that count. A file is written as it is.
//
// A line is written whole, by one call, and is at most kMostLineBytes long; a loop may gather those
// of one turn (LogTurns). What is no printable UTF-8 is shown as '?', so that no peer can forge a
// line. Any thread may log.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError };
enum class LogFormat : uint8_t { kText, kJson };

struct LogSettings {
  LogLevel level = LogLevel::kInfo;  // what is less than that is not written
  LogFormat format = LogFormat::kText;
  bool operator==(const LogSettings&) const = default;
};

std::string_view name_of(LogLevel level) noexcept;    // "debug", "info", "warn", "error"
std::string_view name_of(LogFormat format) noexcept;  // "text", "json"
std::optional<LogLevel> log_level_named(std::string_view name) noexcept;
std::optional<LogFormat> log_format_named(std::string_view name) noexcept;

// What a line tells besides its words: `job=job_01…` as text, `"job":"job_01…"` as JSON. A number,
// if `text` is empty. Names need no escape.
struct LogField {
  LogField(std::string_view its_name, std::string_view its_text) : name(its_name), text(its_text) {}
  LogField(std::string_view its_name, int64_t its_number)
      : name(its_name), number(its_number), is_number(true) {}
  std::string_view name;
  std::string_view text;
  int64_t number = 0;
  bool is_number = false;
};
// Fields whose text is empty are left out.
using LogFields = std::initializer_list<LogField>;

constexpr size_t kMostLogTextBytes = 1400;  // of a line's words; the rest is cut
constexpr size_t kMostLineBytes = 4096;     // PIPE_BUF: a pipe takes it whole, or not at all

// Which process this is: "penstockd"; a worker is also named. Before the first line, and before
// there are threads.
void set_log_source(std::string program, std::string worker = {});
void set_log(LogSettings settings) noexcept;
LogSettings log_settings() noexcept;
// Whether lines of that level are written now.
bool logs(LogLevel level) noexcept;

void write_log(LogLevel level, std::string_view text, LogFields fields = {});
// Says how many lines were lost, if any were and the reader takes it now. Tries once a second, so
// that a loop may call it at each turn.
void tell_lost_lines(int64_t now_ns);

// Lines of this thread that are below kWarn go out together, at the end of the turn of its loop, or
// before the next that is not, or when there are many: a call of the system for each would cost
// more than the line. A killed process loses those of its last turn.
class LogTurns {
 public:
  LogTurns() = default;
  LogTurns(const LogTurns&) = delete;
  LogTurns& operator=(const LogTurns&) = delete;
  ~LogTurns();  // writes what there is; from then on each goes at once
  // Gathers from the first of these on. Tells lost lines, too.
  void end_turn(int64_t now_ns);
};

// The line as it is written, without its end. For tests, and for whoever writes it elsewhere.
std::string log_line(const LogSettings& settings, int64_t unix_ns, LogLevel level,
                     std::string_view text, LogFields fields = {});

}  // namespace penstock
