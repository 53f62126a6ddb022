// Slot: one place for a job, and the lives of the program that runs it, one after another.
//
// A job:
//           start()             it is read             result, error or a broken rule
//   (none) ─────────▶ kKnocking ──────────▶ kRunning ───────────────────────────────▶ (none)
//                                           │  │  │ its result is a file
//                                           │  │  └───────▶ kSending ── all is sent ─▶ (none)
//                                           │  │ cancel(), or it is too much
//                                           │  └──▶ kLeaving ── the program is back ─▶ (none)
//                                           │            │ the grace is over
//                          timeout, death   └────────────┴─▶ kLost ── it is gone ────▶ (none)
//
// Why a knock: a program need not say whose answer it gives, and no answer may become another
// caller's. So the first byte of a job's line is sent alone. Once the program has read it, it waits
// for a job: all that it said before was of no job, or of one that is over, and is dropped. Then
// the rest of the line follows. This costs one more wake-up of the program, about 0.1 ms a job. A
// program that may not be done with its last job (a line over max_line, an answer that nobody asked
// for) has the grace to read the byte; else it is started again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "shared/base/restart_backoff.h"
#include "worker/engines/process/job_line.h"
#include "worker/engines/process/program.h"
#include "worker/engines/process/result_file.h"
#include "worker/engines/process/scratch.h"

namespace penstock::process {

// What all slots of an engine share; it outlives them.
struct Workshop {
  Options options;
  Launch launch;  // but for what is of one slot: its folder, and TMPDIR
  Sink& sink;
  Log log;
};

class Slot final : private Program::Listener {
 public:
  // A job that ended because its program is gone. Its end is told only after penstockd knows how
  // many slots there are now.
  struct Loss {
    JobNumber job;
    std::optional<Failure> failure;  // nothing: it was cancelled, and has left
  };

  Slot(const Workshop& workshop, SlotFolder folder, int epoll, size_t index);

  void on_events(Stream stream, int64_t now_ns);
  // Timers, restarts, and a part of a file's bytes.
  void advance(int64_t now_ns, std::vector<Loss>& losses);
  int64_t due_ns() const;

  // Whether start() may be called.
  bool is_free() const { return !job_ && program_ && program_->is_ready(); }
  // Whether it counts as one of the worker's slots: it is free, or it has a job that counts.
  bool is_open() const { return job_ ? !job_->cancelled : is_free(); }
  // Why it does not count, for the operator, and when it is tried again (INT64_MAX: it is being
  // tried).
  const std::string& trouble() const { return trouble_; }
  int64_t restart_ns() const { return program_ ? INT64_MAX : restart_ns_; }
  // The tokens of all its answers.
  const Usage& used() const { return used_; }

  // REQUIRES: is_free().
  void start(JobNumber job, std::unique_ptr<ProcessPlan> plan, int64_t now_ns);
  bool has(JobNumber job) const { return job_ && job_->number == job; }
  // REQUIRES: has(the job). False: its place is not free yet; call advance().
  bool cancel();
  void pause(bool on);

  // The program is asked to end; it may take a moment.
  void shut_down(int64_t now_ns);
  bool is_shut() const { return !program_ || program_->is_gone(); }

 private:
  struct Job {
    enum class State : uint8_t { kKnocking, kRunning, kSending, kLeaving, kLost };
    JobNumber number;
    std::unique_ptr<ProcessPlan> plan;
    State state = State::kRunning;
    int64_t started_ns = 0;
    int64_t due_ns = INT64_MAX;  // kRunning: its timeout; kKnocking, kLeaving: its grace
    bool headed = false;         // the answer's head is sent
    bool paused = false;         // its caller reads no faster
    bool cancelled = false;      // nobody waits for it
    bool warned = false;         // of what was passed over
    std::string line;            // kKnocking: what is to follow
    int64_t look_ns = 0;         // kKnocking: when it is looked whether the knock was read
    int64_t pause_ns = 0;        // kKnocking: and how long after the last look
    int64_t sent_bytes = 0;
    std::optional<ResultFile> file;  // kSending
    Usage usage;                     // kSending
    std::optional<Failure> failure;  // kLeaving, kLost: what it ends with
  };

  void on_message(Message&& message) override;
  void on_long_line() override;
  std::string_view asked() const override { return asked_; }

  // What the program says of a job that runs.
  void take(Progress&& progress);
  void take(Preview&& preview);
  void take(Chunk&& chunk);
  void take(Answer&& answer);
  void take(Refusal&& refusal);
  void take(Broken&& broken);
  void take(Dropped&& dropped);
  template <typename T>
  void take(T&&) {}

  void launch(int64_t now_ns);
  void on_program_gone(int64_t now_ns, std::vector<Loss>& losses);
  void knock(int64_t now_ns);
  void look_after_knock(int64_t now_ns);
  void check_time(int64_t now_ns);
  void check_memory(int64_t now_ns);
  void check_scratch(int64_t now_ns);
  void kill_greedy(const std::string& what, const char* told);
  bool is_alive() const { return program_ && program_->state() < Program::State::kEnding; }
  void out_of_turn(const char* what);
  void head(const std::string& type, const char* otherwise, int64_t content_length);
  bool fits(int64_t more_bytes);
  void send_file();
  void pass_over(const std::string& why);
  void finish(const Usage& usage);
  void fail(const Failure& failure);
  void leave(int64_t now_ns);
  void lose(Failure failure, Program::Manner manner);
  void forget();
  void say(LogLevel level, const std::string& text);
  void relabel();

  const Workshop& shop_;
  SlotFolder folder_;
  const Watch watch_;
  const size_t index_;
  std::string label_;
  BoundedLog log_;

  std::optional<Program> program_;
  std::optional<Job> job_;
  RestartBackoff backoff_;
  int64_t restart_ns_ = 0;
  Usage used_;
  uint64_t answered_ = 0;       // jobs, by this life of the program
  bool in_doubt_ = false;       // it may not be done with its last job
  bool knocked_ = false;        // the first byte of the next line is sent
  int64_t memory_due_ns_ = 0;   // when it is looked at next
  int64_t scratch_due_ns_ = 0;  // likewise
  int64_t now_ns_ = 0;          // of the call that is being served
  std::string asked_;           // of the last two jobs' bodies, both ends
  std::string last_asked_;      // of the last one's
  std::string trouble_ = "its program is being started";
};

}  // namespace penstock::process
