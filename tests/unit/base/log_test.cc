#include "shared/base/log.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "shared/base/clock.h"
#include "shared/base/fd.h"

namespace penstock {
namespace {

constexpr int64_t kThen = int64_t{1'795'960'980'123} * kNsPerMs;
constexpr LogSettings kText{};
constexpr LogSettings kJson{.format = LogFormat::kJson};

TEST(LogTest, ALineAsText) {
  set_log_source("penstockd");
  EXPECT_EQ(log_line(kText, kThen, LogLevel::kWarn, "a worker is gone"),
            "2026-11-29T14:03:00.123Z [warn] a worker is gone");
  EXPECT_EQ(log_line(kText, kThen, LogLevel::kInfo, "job ended",
                     {{"job", "job_1"}, {"run_ms", 20}, {"error", ""}, {"model", "a \"b\""}}),
            "2026-11-29T14:03:00.123Z [info] job ended job=job_1 run_ms=20 model=\"a \\\"b\\\"\"");
}

TEST(LogTest, ALineAsJson) {
  set_log_source("penstockd");
  EXPECT_EQ(log_line(kJson, kThen, LogLevel::kInfo, "a \"b\" \\ c", {{"n", 3}, {"s", "x=\"y\""}}),
            R"({"time":"2026-11-29T14:03:00.123Z","level":"info","program":"penstockd",)"
            R"("message":"a \"b\" \\ c","n":3,"s":"x=\"y\""})");
}

TEST(LogTest, AWorkerSaysItsName) {
  set_log_source("penstock-worker", "gpu \"1\"");
  EXPECT_EQ(log_line(kText, kThen, LogLevel::kError, "x"),
            "2026-11-29T14:03:00.123Z [error] penstock-worker gpu \"1\": x");
  EXPECT_EQ(log_line(kJson, kThen, LogLevel::kError, "x"),
            R"({"time":"2026-11-29T14:03:00.123Z","level":"error","program":"penstock-worker",)"
            R"("worker":"gpu \"1\"","message":"x"})");
  set_log_source("penstock");
}

TEST(LogTest, NobodyForgesALineAndNoneIsLongerThanAPipeTakesWhole) {
  const std::string hostile = "x\n2026-11-29T13:23:00Z [error] forged \x1b[2J\xff";
  for (const LogSettings& settings : {kText, kJson}) {
    const std::string line =
        log_line(settings, kThen, LogLevel::kInfo, hostile, {{"model", hostile}});
    EXPECT_EQ(line.find_first_of(std::string_view("\n\x1b\xff", 3)), line.npos);
    EXPECT_LE(log_line(settings, kThen, LogLevel::kInfo, std::string(100'000, '"'),
                       {{"model", std::string(5000, '"')}, {"queue", std::string(5000, '\\')}})
                  .size(),
              kMostLineBytes - 300);  // behind a count of lost lines
  }
}

TEST(LogTest, LevelsAndFormatsGoByTheirNames) {
  EXPECT_EQ(log_level_named("warn"), LogLevel::kWarn);
  EXPECT_EQ(log_format_named("json"), LogFormat::kJson);
  EXPECT_FALSE(log_level_named("WARN") || log_level_named("") || log_format_named("xml"));
  set_log({.level = LogLevel::kWarn});
  EXPECT_TRUE(logs(LogLevel::kError) && logs(LogLevel::kWarn) && !logs(LogLevel::kInfo));
  set_log({});
  EXPECT_FALSE(logs(LogLevel::kDebug));
}

// Standard error is `fd` while this lives.
class StandardErrorIs {
 public:
  explicit StandardErrorIs(int fd) : before_(::dup(STDERR_FILENO)) { ::dup2(fd, STDERR_FILENO); }
  ~StandardErrorIs() { ::dup2(before_.get(), STDERR_FILENO); }

 private:
  Fd before_;
};

std::string read_all(int fd) {
  std::string text;
  char bytes[4096];
  for (ssize_t got = 0; (got = ::read(fd, bytes, sizeof bytes)) > 0;) {
    text.append(bytes, static_cast<size_t>(got));
  }
  return text;
}

size_t count(const std::string& text, std::string_view words) {
  size_t found = 0;
  for (size_t at = text.find(words); at != text.npos; at = text.find(words, at + 1)) {
    ++found;
  }
  return found;
}

size_t lost_in(const std::string& text) {
  constexpr std::string_view kWords = "lines before this one were lost: the log was not read lost=";
  size_t lost = 0;
  for (size_t at = text.find(kWords); at != text.npos; at = text.find(kWords, at + 1)) {
    lost += std::stoul(text.substr(at + kWords.size()));
  }
  return lost;
}

// Writes until the reader takes no more; then it reads, and the next try tells of what was lost.
void loses_and_counts(int reader, int writer) {
  ::fcntl(reader, F_SETFL, O_NONBLOCK);
  const std::string long_text(kMostLogTextBytes, 'x');
  constexpr int kLines = 2000;
  const StandardErrorIs here(writer);
  for (int i = 0; i < kLines; ++i) {
    write_log(LogLevel::kInfo, long_text);
  }
  const int64_t now_ns = monotonic_ns();
  tell_lost_lines(now_ns);  // nobody reads: what finds no place stays counted
  const std::string first = read_all(reader);
  const size_t taken = count(first, "[info]");
  ASSERT_GT(taken, 0U);
  ASSERT_LT(taken, size_t{kLines});
  EXPECT_EQ(first.back(), '\n') << "no line is torn";
  write_log(LogLevel::kDebug, "is not written");
  const size_t missing = kLines - taken - lost_in(first);
  tell_lost_lines(now_ns + 1);
  EXPECT_EQ(read_all(reader), "") << "it is tried once a second";
  tell_lost_lines(now_ns + kNsPerSec);
  const std::string told = read_all(reader);
  EXPECT_EQ(lost_in(told), missing) << told;
  tell_lost_lines(now_ns + 2 * kNsPerSec);
  EXPECT_EQ(read_all(reader), "");
}

TEST(LogTest, ALoopGathersTheLinesOfATurn) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);
  const StandardErrorIs here(writer.get());
  const auto lines = [&] { return count(read_all(reader.get()), "\n"); };
  {
    LogTurns turns;
    write_log(LogLevel::kInfo, "before the first turn");
    EXPECT_EQ(lines(), 1U);
    turns.end_turn(monotonic_ns());
    write_log(LogLevel::kInfo, "one");
    write_log(LogLevel::kInfo, "two");
    EXPECT_EQ(lines(), 0U);
    turns.end_turn(monotonic_ns());
    EXPECT_EQ(lines(), 2U);
    write_log(LogLevel::kInfo, "three");
    write_log(LogLevel::kWarn, "what is wrong waits for nothing");
    EXPECT_EQ(lines(), 2U);
    constexpr size_t kMany = 100;
    for (size_t i = 0; i < kMany; ++i) {
      write_log(LogLevel::kInfo, std::string(100, 'x'));
    }
    const size_t at_once = lines();
    EXPECT_GT(at_once, kMany / 2) << "they do not grow without bound";
    turns.end_turn(monotonic_ns());
    EXPECT_EQ(at_once + lines(), kMany);
    write_log(LogLevel::kInfo, "the last");
  }
  EXPECT_EQ(lines(), 1U);
  write_log(LogLevel::kInfo, "behind the loop");
  EXPECT_EQ(lines(), 1U);
}

TEST(LogTest, AFullPipeLosesLinesWhichAreCounted) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);
  loses_and_counts(reader.get(), writer.get());
}

TEST(LogTest, SoDoesASocketWhoseReaderIsSlowAsJournaldMayBe) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);
  loses_and_counts(reader.get(), writer.get());
}

TEST(LogTest, WhatWasGatheredForAFullPipeIsCountedToo) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);
  const StandardErrorIs here(writer.get());
  constexpr size_t kLines = 2000;
  const int64_t later_ns = monotonic_ns() + 10 * kNsPerSec;  // than the tests before have tried
  LogTurns turns;
  turns.end_turn(later_ns);
  for (size_t i = 0; i < kLines; ++i) {
    write_log(LogLevel::kInfo, std::string(i % 200, 'x'));
  }
  turns.end_turn(later_ns);
  const std::string taken = read_all(reader.get());
  EXPECT_EQ(taken.back(), '\n') << "no line is torn";
  turns.end_turn(later_ns + 2 * kNsPerSec);
  const std::string told = read_all(reader.get());
  EXPECT_GT(lost_in(taken) + lost_in(told), 0U);
  EXPECT_EQ(count(taken, "[info]") + lost_in(taken) + lost_in(told), kLines);
}

}  // namespace
}  // namespace penstock
