#include "worker/engines/process/slot.h"

#include <algorithm>
#include <cmath>

#include "shared/base/units.h"
#include "worker/engines/process/failures.h"
#include "worker/engines/process/resident.h"

namespace penstock::process {
namespace {

// Whether a knock was read is looked at after so long, and then a quarter later each time.
constexpr int64_t kFirstLookNs = 50 * kNsPerUs;
constexpr int64_t kLastLookNs = 5 * kNsPerMs;
constexpr int64_t kMemoryNs = 100 * kNsPerMs;  // memory is looked at that often
constexpr int64_t kScratchNs = kNsPerSec;      // and so are files
constexpr double kLogBurst = 100;              // lines of a program at once
constexpr double kLogPerSecond = 10;           // and then so many
constexpr size_t kMostAskedBytes = 64U << 10;  // of each end of a job, kept quiet about
constexpr const char* kBodyFile = "request.body";

std::string ends_of(std::string_view body) {
  if (body.size() <= 2 * kMostAskedBytes) {
    return std::string(body);
  }
  return std::string(body.substr(0, kMostAskedBytes))
      .append(1, '\n')
      .append(body.substr(body.size() - kMostAskedBytes));
}

}  // namespace

Slot::Slot(const Workshop& workshop, SlotFolder folder, int epoll, size_t index)
    : shop_(workshop),
      folder_(std::move(folder)),
      watch_(epoll, index),
      index_(index),
      log_(workshop.log, kLogBurst, kLogPerSecond) {
  relabel();
}

void Slot::relabel() {
  label_ = "slot " + std::to_string(index_);
  if (job_) {
    label_ += ", job " + std::to_string(job_->number);
  }
}

void Slot::say(LogLevel level, const std::string& text) { shop_.log(level, label_ + ": " + text); }

// ---- The program's lives

void Slot::launch(int64_t now_ns) {
  folder_.empty_job();
  folder_.empty_tmp();
  Launch launch = shop_.launch;
  launch.folder = folder_.job();
  launch.environment.push_back("TMPDIR=" + folder_.tmp());
  answered_ = 0;
  in_doubt_ = false;
  knocked_ = false;
  Program::Listener& listener = *this;
  program_.emplace(shop_.options, watch_, listener, log_, label_);
  if (const Status started = program_->start(launch, now_ns); !started) {
    program_.reset();
    trouble_ = started.error().message;
    say(LogLevel::kError, trouble_);
    restart_ns_ = now_ns + backoff_.after(0);
  }
}

void Slot::on_events(Stream stream, int64_t now_ns) {
  now_ns_ = now_ns;
  if (program_) {
    program_->on_events(stream, now_ns);
  }
}

void Slot::advance(int64_t now_ns, std::vector<Loss>& losses) {
  now_ns_ = now_ns;
  if (program_) {
    program_->advance(now_ns);
  }
  if (program_ && program_->is_gone()) {
    on_program_gone(now_ns, losses);
  }
  if (!program_ && now_ns >= restart_ns_) {
    launch(now_ns);
  }
  if (job_ && job_->cancelled && job_->state == Job::State::kRunning) {
    leave(now_ns);
  }
  if (job_) {
    check_time(now_ns);
  }
  if (is_alive() && shop_.options.memory_limit_bytes > 0 && now_ns >= memory_due_ns_) {
    check_memory(now_ns);
  }
  if (is_alive() && now_ns >= scratch_due_ns_) {
    check_scratch(now_ns);
  }
  if (job_ && job_->state == Job::State::kSending && !job_->paused) {
    send_file();
  }
}

int64_t Slot::due_ns() const {
  int64_t due_ns = program_ ? program_->due_ns() : restart_ns_;
  if (is_alive() && shop_.options.memory_limit_bytes > 0) {
    due_ns = std::min(due_ns, memory_due_ns_);
  }
  if (is_alive() && job_) {
    due_ns = std::min(due_ns, scratch_due_ns_);
  }
  if (job_) {
    due_ns = std::min(due_ns, job_->due_ns);
    if (job_->state == Job::State::kKnocking) {
      due_ns = std::min(due_ns, job_->look_ns);
    } else if (job_->state == Job::State::kSending && !job_->paused) {
      due_ns = 0;
    }
  }
  return due_ns;
}

void Slot::on_program_gone(int64_t now_ns, std::vector<Loss>& losses) {
  const Program::End end = program_->end();
  const bool was_ready = end.ready_ns > 0;
  const bool loses = job_ && job_->state != Job::State::kSending;
  // It has done its work and ended as it should, or was made to end though it had done nothing bad.
  const bool well =
      (end.exit_status == 0 && answered_ > 0 && !loses) || (loses && job_->cancelled && was_ready);
  std::string text = "its program " + end.words;
  if (loses && !end.stopped) {
    text += " without a result";
  } else if (!was_ready) {
    text += end.stopped ? "" : " before it was ready";
  }
  if (!was_ready && !end.last_errors.empty()) {
    text += ": " + end.last_errors;
  }
  trouble_ = text;
  const int64_t delay_ns = well ? 0 : backoff_.after(end.ready_ns);
  if (delay_ns > 0) {
    text += "; it starts again in " + format_duration(delay_ns);
  }
  if (!end.stopped || !was_ready) {
    say(!was_ready ? LogLevel::kError : well ? LogLevel::kInfo : LogLevel::kWarn, text);
  }
  if (loses) {
    if (!job_->cancelled && !job_->failure) {
      job_->failure = job_->state == Job::State::kKnocking
                          ? not_now()  // it has seen nothing of the job
                          : lost_attempt("The program ended without a result.");
    }
    losses.push_back({job_->number, job_->cancelled ? std::nullopt : job_->failure});
    forget();
  }
  program_.reset();
  restart_ns_ = now_ns + delay_ns;
}

void Slot::check_memory(int64_t now_ns) {
  memory_due_ns_ = now_ns + kMemoryNs;
  const int64_t most = shop_.options.memory_limit_bytes;
  if (const int64_t bytes = resident_bytes_below(program_->guard_pid()); bytes > most) {
    kill_greedy("holds " + std::to_string(bytes) + " bytes of memory, and its memory_limit is " +
                    std::to_string(most),
                "The program needed more memory than it may have.");
  }
}

void Slot::check_scratch(int64_t now_ns) {
  scratch_due_ns_ = now_ns + kScratchNs;
  const int64_t most = shop_.options.max_scratch_bytes;
  if (const int64_t bytes = folder_.used_bytes(); bytes > most) {
    kill_greedy("has " + std::to_string(bytes) + " bytes in its folders, and its max_scratch is " +
                    std::to_string(most),
                "The program wrote more files than it may.");
  }
}

void Slot::kill_greedy(const std::string& what, const char* told) {
  say(LogLevel::kWarn, "its program " + what + "; it is killed");
  lose(lost_attempt(told), Program::Manner::kAtOnce);
}

void Slot::shut_down(int64_t now_ns) {
  if (program_ && !program_->is_gone()) {
    program_->stop(Program::Manner::kGently, now_ns);
  }
}

// ---- A job from its start to its end

void Slot::start(JobNumber number, std::unique_ptr<ProcessPlan> plan, int64_t now_ns) {
  now_ns_ = now_ns;
  job_.emplace(Job{.number = number, .plan = std::move(plan), .started_ns = now_ns});
  relabel();
  std::string own = ends_of(job_->plan->body);
  asked_ = own + '\n' + last_asked_;  // what it says of the job before may still come
  last_asked_ = std::move(own);
  std::string body_file;
  if (!goes_inline(job_->plan->body)) {
    auto path = folder_.put(kBodyFile, job_->plan->body);
    if (!path) {
      say(LogLevel::kWarn, path.error().message);
      return fail(lost_attempt("The request could not be written for the program."));
    }
    body_file = *path;
  }
  const int64_t deadline_ns = job_->plan->deadline_ns;
  const int64_t left_ns = deadline_ns == 0
                              ? shop_.options.timeout_ns
                              : std::min(shop_.options.timeout_ns, deadline_ns - now_ns);
  job_->line = job_line(number, *job_->plan, body_file, folder_.job(),
                        std::max<int64_t>(left_ns / kNsPerMs, 1));
  job_->plan.reset();  // the line, or the file, has it all
  knock(now_ns);
}

void Slot::knock(int64_t now_ns) {
  job_->state = Job::State::kKnocking;
  job_->due_ns = now_ns + (in_doubt_ ? shop_.options.grace_ns : shop_.options.timeout_ns);
  job_->pause_ns = kFirstLookNs;
  job_->look_ns = now_ns + job_->pause_ns;
  if (!std::exchange(knocked_, true)) {
    program_->send(job_->line.substr(0, 1));
  }
}

// Soon at first, as a program that waits has read it in no time.
void Slot::look_after_knock(int64_t now_ns) {
  if (!program_->has_read_all()) {
    job_->pause_ns = std::min(job_->pause_ns + job_->pause_ns / 4, kLastLookNs);
    job_->look_ns = now_ns + job_->pause_ns;
    return;
  }
  program_->read_output(now_ns);
  if (!job_ || job_->state != Job::State::kKnocking || !program_->is_ready()) {
    return;
  }
  in_doubt_ = false;
  knocked_ = false;
  job_->state = Job::State::kRunning;
  job_->due_ns = now_ns + shop_.options.timeout_ns;
  program_->send(std::string_view(job_->line).substr(1));
  job_->line = {};
}

void Slot::check_time(int64_t now_ns) {
  if (job_->state == Job::State::kKnocking && now_ns >= job_->look_ns && program_ &&
      program_->is_ready()) {
    look_after_knock(now_ns);
  }
  if (!job_ || now_ns < job_->due_ns) {
    return;
  }
  job_->due_ns = INT64_MAX;
  switch (job_->state) {
    case Job::State::kKnocking:
      say(LogLevel::kWarn, "its program does not read its next job, and is started again");
      return lose(not_now(), Program::Manner::kGently);
    case Job::State::kRunning:
      say(LogLevel::kWarn, "its program did not answer within the timeout of " +
                               format_duration(shop_.options.timeout_ns) +
                               ", and is killed; does it flush its output after each line?");
      return lose(lost_attempt("The program did not answer in time."), Program::Manner::kGently);
    case Job::State::kLeaving:
      say(LogLevel::kInfo, "its program did not stop within the grace of " +
                               format_duration(shop_.options.grace_ns) + ", and is killed");
      job_->state = Job::State::kLost;
      return program_->stop(Program::Manner::kGently, now_ns);
    case Job::State::kSending:
    case Job::State::kLost:
      return;
  }
}

bool Slot::cancel() {
  if (job_->state == Job::State::kKnocking || job_->state == Job::State::kSending) {
    forget();  // the program has nothing of it, or is done with it
    return true;
  }
  job_->cancelled = true;
  return false;
}

// The program is told, and has a while to come back from it.
void Slot::leave(int64_t now_ns) {
  job_->state = Job::State::kLeaving;
  job_->due_ns = now_ns + shop_.options.grace_ns;
  program_->listen(true);
  program_->send(cancel_line(job_->number));
}

void Slot::pause(bool on) {
  job_->paused = on;
  if (program_ && job_->state == Job::State::kRunning) {
    program_->listen(!on);
  }
}

// The job ends so once the program is gone.
void Slot::lose(Failure failure, Program::Manner manner) {
  if (job_ && job_->state != Job::State::kSending) {
    job_->state = Job::State::kLost;
    job_->due_ns = INT64_MAX;
    job_->failure = std::move(failure);
  }
  program_->stop(manner, now_ns_);
}

void Slot::finish(const Usage& usage) {
  Usage used = usage;
  used.device_ns = static_cast<uint64_t>(std::max<int64_t>(now_ns_ - job_->started_ns, 0));
  shop_.sink.done(job_->number, used);
  used_.prompt_tokens += used.prompt_tokens;
  used_.completion_tokens += used.completion_tokens;
  forget();
}

void Slot::fail(const Failure& failure) {
  shop_.sink.failed(job_->number, failure);
  forget();
}

void Slot::forget() {
  job_.reset();
  relabel();
  folder_.empty_job();
  log_.say_left_out();
  if (program_ && !program_->is_gone()) {
    program_->listen(true);
  }
}

}  // namespace penstock::process
