#include "worker/engines/process/program.h"

#include <sys/ioctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "shared/base/exit_status.h"
#include "shared/base/units.h"
#include "worker/pool/withhold.h"

namespace penstock::process {
namespace {

constexpr size_t kReadBytes = 64U << 10;
constexpr int kReadsAtOnce = 16;  // one program that floods holds up the others for so long
// A program that exits closes its standard output a moment before its death is known.
constexpr int64_t kDeathNs = 500 * kNsPerMs;
constexpr size_t kLastErrors = 3;
constexpr size_t kLastErrorBytes = 300;

// Reads what is there, a bounded part of it. False: it has ended.
template <typename F>
bool read_some(const Fd& from, F&& on_bytes) {
  char bytes[kReadBytes];
  for (int i = 0; i < kReadsAtOnce; ++i) {
    const ssize_t size = ::read(from.get(), bytes, sizeof bytes);
    if (size <= 0) {
      return size < 0 && (errno == EAGAIN || errno == EINTR);
    }
    on_bytes(std::string_view(bytes, static_cast<size_t>(size)));
  }
  return true;
}

}  // namespace

Status Program::start(const Launch& launch, int64_t now_ns) {
  auto guard = Guard::start(launch, pipes_);
  if (!guard) {
    return guard.error();
  }
  guard_.emplace(std::move(*guard));
  watch_.add(pipes_.output.get(), Stream::kOutput, EPOLLIN);
  watch_.add(pipes_.errors.get(), Stream::kErrors, EPOLLIN);
  watch_.add(guard_->control(), Stream::kControl, EPOLLIN);
  watch_.add(guard_->gone(), Stream::kGone, EPOLLIN);
  start_due_ns_ = now_ns + options_.ready_timeout_ns;
  return Ok{};
}

void Program::on_events(Stream stream, int64_t now_ns) {
  now_ns_ = now_ns;
  switch (stream) {
    case Stream::kInput:
      return write_input();
    case Stream::kOutput:
      return read_output(now_ns);
    case Stream::kErrors:
      return read_errors();
    case Stream::kControl:
      return read_control(now_ns);
    case Stream::kGone:
      return on_gone(now_ns);
  }
}

void Program::advance(int64_t now_ns) {
  now_ns_ = now_ns;
  if (state_ == State::kStarting && now_ns >= start_due_ns_) {
    refuse("is not ready after its ready_timeout of " + format_duration(options_.ready_timeout_ns));
  }
  if (now_ns >= silent_due_ns_) {
    refuse("has closed its standard output");
  }
  if (now_ns >= kill_due_ns_) {
    kill_due_ns_ = INT64_MAX;
    guard_->kill();
  }
}

int64_t Program::due_ns() const {
  const int64_t start = state_ == State::kStarting ? start_due_ns_ : INT64_MAX;
  return std::min({start, kill_due_ns_, silent_due_ns_});
}

void Program::send(std::string_view line) {
  unsent_.append(line);
  write_input();
}

// What it does not take is waited for. That it takes nothing any more is told by its death, or by
// the job's timeout.
void Program::write_input() {
  while (!unsent_.empty()) {
    const ssize_t size = ::write(pipes_.input.get(), unsent_.data(), unsent_.size());
    if (size < 0 && errno != EINTR && errno != EAGAIN) {
      unsent_.clear();
    } else if (size < 0 && errno == EAGAIN) {
      break;
    } else if (size > 0) {
      unsent_.erase(0, static_cast<size_t>(size));
    }
  }
  if (const bool waits = !unsent_.empty(); waits != waits_to_write_) {
    waits_to_write_ = waits;
    waits ? watch_.add(pipes_.input.get(), Stream::kInput, EPOLLOUT)
          : watch_.remove(pipes_.input.get());
  }
}

bool Program::has_read_all() const {
  int unread = 0;
  return unsent_.empty() && ::ioctl(pipes_.input.get(), FIONREAD, &unread) == 0 && unread == 0;
}

void Program::listen(bool on) {
  if (listens_ != on && pipes_.output.valid()) {
    listens_ = on;
    watch_.change(pipes_.output.get(), Stream::kOutput, on ? uint32_t{EPOLLIN} : 0);
  }
}

void Program::read_output(int64_t now_ns) {
  now_ns_ = now_ns;
  if (!pipes_.output.valid()) {
    return;
  }
  const auto on_line = [this](const LineReader::Line& line) { this->on_line(line); };
  const bool open =
      read_some(pipes_.output, [&](std::string_view bytes) { lines_.feed(bytes, on_line); });
  if (!open) {
    pipes_.output.reset();
    lines_.finish(on_line);
    if (state_ == State::kStarting || state_ == State::kReady) {
      silent_due_ns_ = now_ns + kDeathNs;
    }
  }
}

void Program::read_errors() {
  const auto on_line = [this](const LineReader::Line& line) { on_errors_line(line.text); };
  if (pipes_.errors.valid() && !read_some(pipes_.errors, [&](std::string_view bytes) {
        error_lines_.feed(bytes, on_line);
      })) {
    pipes_.errors.reset();
    error_lines_.finish(on_line);
  }
}

void Program::on_errors_line(std::string_view line) {
  if (line.find_first_not_of(" \t\r") == line.npos) {
    return;
  }
  last_errors_.emplace_back(line.substr(0, kLastErrorBytes));
  if (last_errors_.size() > kLastErrors) {
    last_errors_.pop_front();
  }
  note("stderr", line);
}

void Program::note(std::string_view what, std::string_view text) {
  log_.line(
      LogLevel::kInfo,
      [&] {
        return label_ + ": " + std::string(what) + ": " + withhold(text, {listener_.asked()});
      },
      now_ns_);
}

void Program::on_line(const LineReader::Line& line) {
  if (deaf_ || line.text.empty()) {
    return;
  }
  if (!line.text.starts_with('{') || (!line.whole && !is_ready())) {
    return note("stdout", line.text);
  }
  if (!line.whole) {
    return listener_.on_long_line();
  }
  Message message = messages_.read(line.text);
  if (std::holds_alternative<Noise>(message.what)) {
    return note("stdout", line.text);
  }
  if (is_ready()) {
    return listener_.on_message(std::move(message));
  }
  on_starting(message);
  if (!std::holds_alternative<Hello>(message.what) &&
      !std::holds_alternative<Ready>(message.what)) {
    note("stdout", line.text);
  }
}

void Program::on_starting(const Message& message) {
  constexpr uint64_t kVersion = 1;
  if (const auto* hello = std::get_if<Hello>(&message.what)) {
    greeted_ = true;
    if (hello->version != kVersion) {
      refuse("speaks version " + std::to_string(hello->version) + " of the protocol; this is " +
             std::to_string(kVersion));
    }
  } else if (std::holds_alternative<Ready>(message.what)) {
    if (!greeted_) {
      return refuse("said that it is ready before its first line, {\"penstock\":1}");
    }
    state_ = State::kReady;
    ready_ns_ = now_ns_;
  }
}

// It is of no use, whatever it does next.
void Program::refuse(const std::string& why) {
  if (end_.words.empty()) {
    end_.words = why;
  }
  make_end(Manner::kGently, now_ns_);
}

void Program::stop(Manner manner, int64_t now_ns) {
  end_.stopped = true;
  make_end(manner, now_ns);
}

void Program::make_end(Manner manner, int64_t now_ns) {
  deaf_ = true;
  if (manner == Manner::kAtOnce) {
    guard_->kill();
  } else {
    guard_->terminate();
    kill_due_ns_ = now_ns + options_.grace_ns;
  }
  begin_end(now_ns);
}

void Program::begin_end(int64_t now_ns) {
  if (state_ == State::kReady) {
    end_.ready_ns = std::max<int64_t>(now_ns - ready_ns_, 1);
  }
  if (state_ != State::kGone) {
    state_ = State::kEnding;
  }
  silent_due_ns_ = INT64_MAX;
}

void Program::read_control(int64_t now_ns) {
  const auto notice = guard_->notice();
  if (!notice) {
    return watch_.remove(guard_->control());  // it has ended
  }
  if (notice->kind == Guard::Notice::kExited) {
    exited(notice->value, now_ns);
  } else {
    not_started(notice->value);
  }
}

void Program::exited(int status, int64_t now_ns) {
  read_errors();
  read_output(now_ns);
  lines_.finish([this](const LineReader::Line& line) { on_line(line); });
  if (end_.words.empty()) {
    end_.words = exit_words(status);
  }
  if (WIFEXITED(status)) {
    end_.exit_status = WEXITSTATUS(status);
  }
  begin_end(now_ns);
}

void Program::not_started(int error) {
  if (end_.words.empty()) {
    end_.words = "cannot be started: " + options_.command.front() + ": " + std::strerror(error);
  }
}

void Program::on_gone(int64_t now_ns) {
  while (const auto notice = guard_->notice()) {
    if (notice->kind == Guard::Notice::kExited) {
      exited(notice->value, now_ns);
    } else {
      not_started(notice->value);
    }
  }
  guard_->reap();
  if (end_.words.empty()) {
    end_.words = "is gone, and so is its guard, which somebody has killed";
  }
  for (const std::string& line : last_errors_) {
    end_.last_errors += (end_.last_errors.empty() ? "" : " | ") + line;
  }
  begin_end(now_ns);
  state_ = State::kGone;
}

}  // namespace penstock::process
