// Program: one life of a program, from its start until the last that it forked is gone.
//
//              fork, exec          {"penstock":1}, then {"ready":true}
//   (start) ────────────▶ kStarting ─────────────────────────────────▶ kReady ⟲ messages
//                             │ ready_timeout, another version            │
//                             │                                           │ stop(), or it exits
//                             └──────────────────────┬────────────────────┘
//                                                    ▼
//                               kEnding: TERM, after the grace KILL (stop());
//                               KILL to what it left behind (it exited)
//                                                    │ the guard is gone, and so is all else
//                                                    ▼
//                                                  kGone
//
// What a program had written when it exited is read to the end first: so a result counts that is
// its last word. After stop() nothing counts that it says. This class knows nothing of jobs: see
// slot.h.
//
// It never waits. Pipes are non-blocking both ways, so a program that writes before it reads, or
// reads nothing, holds up nobody.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "worker/engines/process/guard.h"
#include "worker/engines/process/line_reader.h"
#include "worker/engines/process/messages.h"
#include "worker/engines/process/options.h"
#include "worker/engines/process/watch.h"
#include "worker/pool/log.h"

namespace penstock::process {

class Program {
 public:
  enum class State : uint8_t { kStarting, kReady, kEnding, kGone };

  // May call stop() and send(), and must not destroy the program.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void on_message(Message&& message) = 0;  // while kReady, and of what was left to read
    virtual void on_long_line() = 0;                 // likewise, over max_line
    virtual std::string_view asked() const { return {}; }  // of it last: no log is to tell that
  };

  // How it ended. Valid once it is kGone.
  struct End {
    std::string words;               // "exited with status 1", "was killed by signal 9 (Killed)"
    std::optional<int> exit_status;  // nothing: by a signal, or not started
    bool stopped = false;            // by stop()
    int64_t ready_ns = 0;            // how long it was ready; 0: it never was
    std::string last_errors;         // the last lines of its standard error
  };

  // All outlive this. `label`: how the log names it.
  Program(const Options& options, const Watch& watch, Listener& listener, BoundedLog& log,
          const std::string& label)
      : options_(options),
        watch_(watch),
        listener_(listener),
        log_(log),
        label_(label),
        lines_(static_cast<size_t>(options.max_line_bytes)) {}

  Status start(const Launch& launch, int64_t now_ns);

  // One of its descriptors is ready.
  void on_events(Stream stream, int64_t now_ns);
  // Timers; due_ns() is when to come again.
  void advance(int64_t now_ns);
  int64_t due_ns() const;

  void send(std::string_view line);
  // Whether it has read all that was sent.
  bool has_read_all() const;
  // Sets whether its standard output is read. Else what it writes stays in the pipe.
  void listen(bool on);
  // Reads what it has written so far.
  void read_output(int64_t now_ns);

  enum class Manner : uint8_t { kGently, kAtOnce };  // TERM first, or KILL
  void stop(Manner manner, int64_t now_ns);

  State state() const { return state_; }
  bool is_ready() const { return state_ == State::kReady; }
  bool is_gone() const { return state_ == State::kGone; }
  // REQUIRES: start() succeeded.
  pid_t guard_pid() const { return guard_->pid(); }
  const End& end() const { return end_; }

 private:
  void on_line(const LineReader::Line& line);
  void on_starting(const Message& message);
  void on_errors_line(std::string_view line);
  void note(std::string_view what, std::string_view text);
  void write_input();
  void read_errors();
  void read_control(int64_t now_ns);
  void exited(int status, int64_t now_ns);
  void not_started(int error);
  void make_end(Manner manner, int64_t now_ns);
  void begin_end(int64_t now_ns);
  void on_gone(int64_t now_ns);
  void refuse(const std::string& why);

  const Options& options_;
  const Watch& watch_;
  Listener& listener_;
  BoundedLog& log_;
  const std::string& label_;

  State state_ = State::kStarting;
  std::optional<Guard> guard_;
  Guard::Pipes pipes_;
  LineReader lines_;
  LineReader error_lines_{LineReader::kBeginningBytes};
  MessageReader messages_;
  std::string unsent_;
  std::deque<std::string> last_errors_;
  bool greeted_ = false;  // it has told the version
  bool listens_ = true;
  bool waits_to_write_ = false;
  bool deaf_ = false;  // it is made to end
  End end_;
  int64_t now_ns_ = 0;  // of the call that is being served
  int64_t ready_ns_ = 0;
  int64_t start_due_ns_ = INT64_MAX;   // ready by then
  int64_t kill_due_ns_ = INT64_MAX;    // TERM was not enough
  int64_t silent_due_ns_ = INT64_MAX;  // standard output ended, and it has not
};

}  // namespace penstock::process
