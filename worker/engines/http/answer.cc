// Answer: what comes. How it ends: answer_end.cc.
#include "worker/engines/http/answer.h"

#include <algorithm>

#include "shared/http/header_lines.h"

namespace penstock::http_engine {
namespace {

constexpr size_t kShownBytes = 64;  // of what is no HTTP

bool opens_json(std::string_view text) { return text.starts_with('{') || text.starts_with('['); }

bool is_type(std::string_view type, std::string_view wanted) {
  return http::same_name(type.substr(0, std::min(type.find_first_of("; "), type.size())), wanted);
}

bool is_lines(std::string_view type) {
  return is_type(type, "application/x-ndjson") || is_type(type, "application/ndjson") ||
         is_type(type, "application/jsonl") || is_type(type, "application/x-jsonlines");
}

bool is_json(std::string_view type) {
  const std::string_view essence = type.substr(0, type.find(';'));
  return is_type(type, "application/json") || essence.ends_with("+json");
}

bool begins_an_event(std::string_view text) {
  constexpr std::string_view kFields[] = {"data:", "event:", "id:", "retry:", "error:", ":"};
  return std::any_of(std::begin(kFields), std::end(kFields),
                     [&](std::string_view field) { return text.starts_with(field); });
}

}  // namespace

Answer::Answer(JobNumber job, const Call& call, Shared& shared, int64_t now_ns)
    : job_(job),
      call_(call),
      shared_(shared),
      now_ns_(now_ns),
      begun_ns_(now_ns),
      byte_ns_(now_ns),
      part_ns_(now_ns) {
  counted_.prompt_bytes = call.prompt_bytes;
  counted_.text = call.makes_text;
}

bool Answer::on_header(std::string_view line, int64_t now_ns) {
  now_ns_ = byte_ns_ = now_ns;
  header_flood_ = header_flood_ || !head_.take(line);
  return !header_flood_;
}

bool Answer::on_body(std::string_view bytes, int64_t now_ns) {
  now_ns_ = byte_ns_ = now_ns;
  body_bytes_ += static_cast<int64_t>(bytes.size());
  if (head_.status() == 0) {
    not_http_.append(bytes.substr(0, kShownBytes - std::min(not_http_.size(), kShownBytes)));
    return false;
  }
  head_.close();
  if (phase_ == Phase::kHead && !begin_body()) {
    return false;
  }
  return phase_ == Phase::kSniffing ? sniff(bytes) : take(bytes);
}

// The head is known; what kind of a body is it?
bool Answer::begin_body() {
  content_type_ = head_.content_type();
  if (head_.status() >= 300) {
    phase_ = Phase::kRefusal;
    too_large_ = head_.content_length() > shared_.options.max_error_body_bytes;
    return !too_large_;
  }
  if (is_lines(content_type_)) {
    phase_ = Phase::kLines;
    split(EventSplitter::Format::kLines);
  } else if (call_.reads_json && !is_type(content_type_, "text/event-stream")) {
    const bool media = content_type_.starts_with("audio/") || content_type_.starts_with("image/") ||
                       content_type_.starts_with("video/") ||
                       is_type(content_type_, "application/octet-stream");
    phase_ = media ? Phase::kBytes : Phase::kSniffing;
  } else if (is_type(content_type_, "text/event-stream")) {
    phase_ = Phase::kEvents;
    split(EventSplitter::Format::kEvents);
  } else {
    phase_ = is_json(content_type_) ? Phase::kJson : Phase::kBytes;
  }
  return true;
}

void Answer::split(EventSplitter::Format format) {
  splitter_.emplace(format, static_cast<EventSplitter::Listener&>(*this));
}

// Some servers give events or JSON another type. Blank lines before them are signs of life.
bool Answer::sniff(std::string_view bytes) {
  const size_t from = bytes.find_first_not_of(" \t\r\n");
  if (from == bytes.npos && held_.empty()) {
    return true;
  }
  held_.append(held_.empty() ? bytes.substr(from) : bytes);
  constexpr size_t kEnough = 6;
  const bool json = opens_json(held_);
  if (held_.size() < kEnough && !json) {
    return true;
  }
  const bool events = begins_an_event(held_);
  phase_ = events ? Phase::kEvents : Phase::kJson;
  const char* const type = events ? "text/event-stream" : "application/json";
  if ((events || json) && !(json && is_json(content_type_))) {
    say(LogLevel::kWarn,
        "its content-type is \"" + content_type_ + "\", and its answer is " + type);
    content_type_ = type;
  }
  if (events) {
    split(EventSplitter::Format::kEvents);
  }
  return take(std::exchange(held_, {}));
}

bool Answer::take(std::string_view bytes) {
  switch (phase_) {
    case Phase::kRefusal:
      too_large_ =
          held_.size() + bytes.size() > static_cast<size_t>(shared_.options.max_error_body_bytes);
      held_.append(too_large_ ? "" : bytes);
      return !too_large_;
    case Phase::kEvents:
    case Phase::kLines:
      return splitter_->feed(bytes);
    case Phase::kJson:
      return take_json(bytes);
    default:
      if (!committed_) {
        commit(head_.status(), head_.encoded() ? -1 : head_.content_length());
      }
      return pass(bytes);
  }
}

// What is held is read whole at its end; of what is not, the fields are looked for as it comes.
bool Answer::take_json(std::string_view bytes) {
  if (committed_) {
    fields_.feed(bytes);
    return pass(bytes);
  }
  held_.append(bytes);
  const bool nonsense = call_.reads_json && !opens_json(held_);
  if (held_.size() <= kMaxHeldBytes || nonsense) {
    return !nonsense || held_.size() <= kMaxHeldBytes;
  }
  const int64_t dropped = body_bytes_ - static_cast<int64_t>(held_.size());
  const bool known = !head_.encoded() && head_.content_length() >= 0;
  commit(head_.status(), known ? head_.content_length() - dropped : -1);
  fields_.feed(held_);
  return pass(std::exchange(held_, {}));
}

bool Answer::on_event(const Event& event) {
  if (error_) {
    return true;  // nothing counts any more but the end of the transfer
  }
  if (done_told_) {
    excess_ = event.bytes.find_first_not_of("\r\n") != event.bytes.npos;
    return !excess_ && (!committed_ || pass(event.bytes));
  }
  if (!event.has_data) {
    comments_ = comments_ || event.bytes.find(':') != event.bytes.npos;
    return !committed_ || pass(event.bytes);
  }
  if (!event.whole) {
    counted_.completion_bytes += event.bytes.size();
    progress_made();
    commit(head_.status(), -1);
    return pass(event.bytes);
  }
  if (event.data == "[DONE]") {
    done_told_ = ended_ = true;
    drain_ns_ = now_ns_ + kDrainNs;
    return !committed_ || pass(event.bytes);
  }
  return on_told(event, shared_.tell_tale.event(event.data, event.type, event.is_error));
}

bool Answer::on_told(const Event& event, Told told) {
  note(told);
  if (told.error) {
    error_ = std::move(told.error);
    drain_ns_ = now_ns_ + kDrainNs;
    // JSON lines have no other way to tell; of events, ours follows.
    return phase_ != Phase::kLines || !committed_ || pass(event.bytes);
  }
  // Routers, who send comments while they wait, tell the usage to everyone; and to callers who know
  // them. What comes only because we asked is announced by nulls, or by nothing.
  if (told.only_usage && call_.hides_usage && (null_usage_ || !comments_)) {
    return true;
  }
  if (told.content) {
    progress_made();
    commit(head_.status(), -1);
  }
  if (committed_) {
    ++parts_;
    return pass(event.bytes);
  }
  held_.append(event.bytes);
  if (held_.size() > kMaxHeldBytes) {
    commit(head_.status(), -1);
  }
  return true;
}

void Answer::note(const Told& told) {
  counted_.text = counted_.text || told.text;
  counted_.completion_bytes = told.all_so_far
                                  ? std::max<uint64_t>(counted_.completion_bytes, told.text_bytes)
                                  : counted_.completion_bytes + told.text_bytes;
  if (told.usage) {
    counted_.told = counted_.told.value_or(ToldUsage());
    counted_.told->update(*told.usage);
  }
  choices_ = choices_ || told.choices;
  null_usage_ = null_usage_ || told.null_usage;
  must_end_ = must_end_ || told.must_end;
  for (const int64_t choice : told.finished) {
    if (finished_.size() < call_.choices) {
      finished_.insert(choice);
    }
    finish_ns_ = now_ns_;
  }
  if (told.ends) {
    ended_ = true;
    drain_ns_ = now_ns_ + kDrainNs;
  }
}

// The first that the caller hears; and what was held for it.
void Answer::commit(int status, int64_t length) {
  if (std::exchange(committed_, true)) {
    return;
  }
  shared_.sink.head(job_, status, content_type_, length, head_.allowed());
  if (phase_ == Phase::kEvents || phase_ == Phase::kLines) {
    pass(std::exchange(held_, {}));
  }
}

bool Answer::pass(std::string_view bytes) {
  if (bytes.empty()) {
    return true;
  }
  const int64_t room = shared_.options.max_answer_bytes - passed_bytes_;
  if (static_cast<int64_t>(bytes.size()) > room) {
    too_large_ = true;
    return false;
  }
  passed_bytes_ += static_cast<int64_t>(bytes.size());
  shared_.sink.chunk(job_, bytes);
  if (phase_ == Phase::kJson || phase_ == Phase::kBytes) {
    progress_made();
  }
  return true;
}

Answer::Due Answer::next_due() const {
  const Timeouts& timeouts = shared_.options.timeouts;
  const bool streams = phase_ == Phase::kEvents || phase_ == Phase::kLines;
  Due due{INT64_MAX, Timer::kNone};
  const auto consider = [&](int64_t from_ns, int64_t after_ns, Timer timer) {
    if (after_ns > 0 && from_ns + after_ns < due.at_ns) {
      due = {from_ns + after_ns, timer};
    }
  };
  consider(begun_ns_, timeouts.total_ns, Timer::kTotal);
  consider(byte_ns_, timeouts.idle_ns, Timer::kIdle);
  if (!committed_) {
    consider(begun_ns_, timeouts.first_event_ns, Timer::kFirstEvent);
  } else if (streams) {
    consider(part_ns_, timeouts.event_idle_ns, Timer::kEventIdle);
  }
  if (finished() && finish_ns_ > 0) {
    consider(finish_ns_, timeouts.after_finish_ns, Timer::kAfterFinish);
  }
  if (drain_ns_ > 0) {
    consider(drain_ns_ - 1, 1, Timer::kDrain);
  }
  return due;
}

int64_t Answer::due_ns() const { return next_due().at_ns; }

void Answer::expire(int64_t now_ns) {
  now_ns_ = now_ns;
  expired_ = next_due().timer;
}

void Answer::rewind(int64_t now_ns) {
  const int64_t passed_ns = now_ns - now_ns_;
  begun_ns_ += passed_ns;
  finish_ns_ += finish_ns_ > 0 ? passed_ns : 0;
  drain_ns_ += drain_ns_ > 0 ? passed_ns : 0;
  now_ns_ = byte_ns_ = part_ns_ = now_ns;
}

}  // namespace penstock::http_engine
