// What a program says, and what becomes of it.
#include <algorithm>

#include "shared/base/utf8.h"
#include "worker/engines/process/failures.h"
#include "worker/engines/process/slot.h"

namespace penstock::process {
namespace {

constexpr size_t kPieceBytes = 64U << 10;
constexpr int kPiecesAtOnce = 16;  // of a file, between two looks at the other slots

}  // namespace

void Slot::on_message(Message&& message) {
  using State = Job::State;
  const bool ends =
      std::holds_alternative<Answer>(message.what) || std::holds_alternative<Refusal>(message.what);
  if (std::holds_alternative<Broken>(message.what) && (!job_ || job_->state != State::kRunning)) {
    take(std::get<Broken>(std::move(message.what)));
  } else if (!job_ || job_->state == State::kKnocking || job_->state == State::kSending) {
    if (ends || std::holds_alternative<Chunk>(message.what)) {
      out_of_turn("nobody has asked for");
    }
  } else if (message.job && *message.job != job_->number) {
    say(LogLevel::kInfo,
        "its program said something of job " + std::to_string(*message.job) + ", which has ended");
  } else if (job_->state == State::kRunning) {
    std::visit([this](auto&& what) { take(std::forward<decltype(what)>(what)); },
               std::move(message.what));
  } else if (job_->state == State::kLeaving &&
             (ends || std::holds_alternative<Ready>(message.what))) {
    if (job_->cancelled) {
      shop_.sink.left(job_->number);
      return forget();
    }
    fail(*std::exchange(job_->failure, std::nullopt));
  }
}

// It may be the end of a job before, or the beginning of trouble.
void Slot::out_of_turn(const char* what) {
  if (!in_doubt_) {
    say(LogLevel::kWarn, std::string("its program gave an answer that ") + what);
  }
  in_doubt_ = true;
}

void Slot::on_long_line() {
  const std::string most = std::to_string(shop_.options.max_line_bytes);
  if (job_ && job_->state != Job::State::kRunning) {
    return;
  }
  say(LogLevel::kWarn, "its program wrote a line of more than max_line, " + most + " bytes");
  in_doubt_ = true;
  if (job_) {
    fail(broken_rule("The program wrote a line of more than " + most + " bytes."));
  }
}

void Slot::take(Broken&& broken) {
  say(LogLevel::kWarn, "a line of its program cannot be read, and it is killed: " + broken.why);
  if (job_ && job_->cancelled) {
    job_->state = Job::State::kLost;
    return program_->stop(Program::Manner::kAtOnce, now_ns_);
  }
  lose(lost_attempt("The program wrote a line that cannot be read."), Program::Manner::kAtOnce);
}

void Slot::take(Progress&& progress) {
  shop_.sink.progress(job_->number, std::clamp(progress.fraction, 0.0, 1.0), progress.step,
                      progress.steps);
}

void Slot::take(Dropped&& dropped) { pass_over(dropped.why); }

void Slot::take(Preview&& preview) {
  Content& picture = preview.picture;
  const int64_t most = std::min<int64_t>(shop_.options.max_preview_bytes, Sink::kMaxPreviewBytes);
  if (!picture.type.starts_with("image/")) {
    return pass_over("a preview of type \"" + picture.type + "\"; it must be a picture");
  }
  if (picture.file) {
    auto file = ResultFile::open(folder_.job_fd(), folder_.job(), *picture.file, most);
    if (!file) {
      return pass_over("a preview: " + file.error().message);
    }
    if (const Status read = file->read(static_cast<size_t>(most), picture.bytes); !read) {
      return pass_over("a preview: " + read.error().message);
    }
  }
  if (static_cast<int64_t>(picture.bytes.size()) > most) {
    return pass_over("a preview of " + std::to_string(picture.bytes.size()) +
                     " bytes; the most is " + std::to_string(most));
  }
  shop_.sink.preview(job_->number, picture.type, picture.bytes);
}

// Once a job.
void Slot::pass_over(const std::string& why) {
  if (!std::exchange(job_->warned, true)) {
    say(LogLevel::kWarn, "passed over " + why);
  }
}

// False: the job has failed.
bool Slot::fits(int64_t more_bytes) {
  job_->sent_bytes += more_bytes;
  return job_->sent_bytes <= shop_.options.max_result_bytes;
}

void Slot::take(Chunk&& chunk) {
  if (chunk.text.empty()) {
    return;
  }
  if (!fits(static_cast<int64_t>(chunk.text.size()))) {
    const std::string most = std::to_string(shop_.options.max_result_bytes);
    say(LogLevel::kWarn, "its answer has more than max_result, " + most + " bytes");
    job_->failure = broken_rule("The answer has more than " + most + " bytes.");
    return leave(now_ns_);
  }
  head(chunk.type, "text/plain", -1);
  shop_.sink.chunk(job_->number, chunk.text);
}

void Slot::head(const std::string& type, const char* otherwise, int64_t content_length) {
  if (!std::exchange(job_->headed, true)) {
    shop_.sink.head(job_->number, 200, type.empty() ? otherwise : type, content_length);
  }
}

void Slot::take(Answer&& answer) {
  Content& content = answer.content;
  ++answered_;
  const auto refuse = [this](const std::string& why, const char* told) {
    say(LogLevel::kWarn, "its result is refused: " + why);
    fail(broken_rule(told));
  };
  if (content.file) {
    auto file = ResultFile::open(folder_.job_fd(), folder_.job(), *content.file,
                                 shop_.options.max_result_bytes - job_->sent_bytes);
    if (!file) {
      return refuse(file.error().message, "The program's result cannot be used.");
    }
    head(content.type, "application/octet-stream", file->size());
    job_->file.emplace(std::move(*file));
    job_->usage = answer.usage;
    job_->state = Job::State::kSending;
    job_->due_ns = INT64_MAX;
    return;
  }
  const auto size = static_cast<int64_t>(content.bytes.size());
  if (!fits(size)) {
    return refuse(
        "it has more than max_result, " + std::to_string(shop_.options.max_result_bytes) + " bytes",
        "The program's result is too large.");
  }
  head(content.type, "text/plain", size);
  if (!content.bytes.empty()) {
    shop_.sink.chunk(job_->number, content.bytes);
  }
  finish(answer.usage);
}

void Slot::send_file() {
  std::string piece;
  for (int i = 0; i < kPiecesAtOnce && job_->file->unread() > 0; ++i) {
    if (const Status read = job_->file->read(kPieceBytes, piece); !read) {
      say(LogLevel::kWarn, read.error().message);
      return fail(broken_rule("The program's result could not be read to its end."));
    }
    shop_.sink.chunk(job_->number, piece);
  }
  if (job_->file->unread() == 0) {
    finish(job_->usage);
  }
}

void Slot::take(Refusal&& refusal) {
  say(LogLevel::kInfo,
      "its program refuses it: " + refusal.failure.code + ": " + refusal.failure.message);
  fail(refusal.failure);
}

}  // namespace penstock::process
