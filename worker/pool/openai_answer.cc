// The answer half of openai.h.
#include <sys/random.h>

#include <algorithm>
#include <cstring>

#include "shared/base/bytes.h"
#include "shared/base/utf8.h"
#include "shared/http/problem.h"
#include "worker/pool/openai.h"

namespace penstock::openai {
namespace {

void append_json(std::string& out, std::string_view text) {
  constexpr size_t kLongestEscape = 6;
  const size_t start = out.size();
  out.resize(start + kLongestEscape * text.size());
  const char* end = http::escape_json(text, out.data() + start, out.data() + out.size());
  out.resize(end != nullptr ? static_cast<size_t>(end - out.data()) : start);
}

// 24 hex digits nobody can guess or has seen before.
void append_random(std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  unsigned char bytes[12] = {};
  if (::getrandom(bytes, sizeof bytes, GRND_NONBLOCK) < 0) {
    std::memset(bytes, 0, sizeof bytes);  // only in the first seconds after boot
  }
  for (const unsigned char byte : bytes) {
    out += kHex[byte >> 4];
    out += kHex[byte & 15];
  }
}

void append_usage(std::string& out, const Usage& usage) {
  out += "\"usage\":{\"prompt_tokens\":" + std::to_string(usage.prompt_tokens) +
         ",\"completion_tokens\":" + std::to_string(usage.completion_tokens) +
         ",\"total_tokens\":" + std::to_string(usage.prompt_tokens + usage.completion_tokens) + "}";
}

std::string opening_of(const CompletionRequest& request, std::string_view model,
                       int64_t created_unix_s) {
  std::string out = request.chat ? "{\"id\":\"chatcmpl-" : "{\"id\":\"cmpl-";
  append_random(out);
  out += "\",\"object\":\"";
  out += !request.chat ? "text_completion"
                       : (request.stream ? "chat.completion.chunk" : "chat.completion");
  out += "\",\"created\":" + std::to_string(created_unix_s) + ",\"model\":\"";
  append_json(out, model);
  out += "\",";
  return out;
}

struct Match {
  size_t start = std::string::npos;
  size_t end = std::string::npos;
};

// The stop string that was complete first as the text came byte by byte; of two, the longer.
Match first_stop(const std::string& text, const std::vector<std::string>& stops) {
  Match best;
  for (const std::string& stop : stops) {
    const size_t start = text.find(stop);
    const size_t end = start == std::string::npos ? start : start + stop.size();
    if (end < best.end || (end == best.end && start < best.start)) {
      best = {start, end};
    }
  }
  return best;
}

// Offset of the longest tail of `text` that a stop string begins with; its size when there is none.
size_t possible_stop(std::string_view text, const std::vector<std::string>& stops) {
  size_t from = text.size();
  for (const std::string& stop : stops) {
    const size_t longest = std::min(text.size(), stop.size() - 1);
    for (size_t length = longest; length > text.size() - from; --length) {
      if (text.ends_with(std::string_view(stop).substr(0, length))) {
        from = text.size() - length;
        break;
      }
    }
  }
  return from;
}

}  // namespace

Answer::Answer(JobNumber job, const CompletionRequest& request, std::string_view model,
               int64_t created_unix_s, Sink& sink)
    : job_(job),
      sink_(&sink),
      chat_(request.chat),
      stream_(request.stream),
      word_begun_(!request.chat),
      include_usage_(request.include_usage),
      opening_(opening_of(request, model, created_unix_s)),
      stop_(request.stop) {}

// With the first text, not before: a job whose answer has not begun can still be given to another
// worker.
void Answer::begin_stream() {
  if (stream_begun_) {
    return;
  }
  stream_begun_ = true;
  sink_->head(job_, 200, "text/event-stream; charset=utf-8", -1);
  if (chat_) {
    scratch_ = "data: " + opening_ +
               "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
               "\"logprobs\":null,\"finish_reason\":null}]";
    scratch_ += include_usage_ ? ",\"usage\":null}\n\n" : "}\n\n";
    sink_->chunk(job_, scratch_);
  }
}

bool Answer::text(std::string_view piece) {
  if (stopped_ || piece.empty()) {
    return !stopped_;
  }
  held_ += piece;
  if (cut_at_stop()) {
    emit(held_);
    held_.clear();
    return false;
  }
  const size_t whole = utf8_complete_prefix(held_);
  const size_t safe = std::min(whole, possible_stop(held_, stop_));
  emit(std::string_view(held_).substr(0, safe));
  held_.erase(0, safe);
  return true;
}

// Drops a complete stop string and what follows it from held_.
bool Answer::cut_at_stop() {
  const Match match = first_stop(held_, stop_);
  stopped_ = match.start != std::string::npos;
  if (stopped_) {
    held_.resize(match.start);
  }
  return stopped_;
}

void Answer::emit(std::string_view safe_text) {
  if (!word_begun_) {
    safe_text.remove_prefix(std::min(safe_text.find_first_not_of(" \t\r\n\f\v"), safe_text.size()));
    word_begun_ = !safe_text.empty();
  }
  if (safe_text.empty()) {
    return;
  }
  if (!stream_) {
    whole_ += safe_text;
    return;
  }
  begin_stream();
  scratch_.clear();
  append_event(scratch_, safe_text, nullptr);
  sink_->chunk(job_, scratch_);
}

void Answer::append_event(std::string& out, std::string_view text,
                          const char* finish_reason) const {
  out += "data: ";
  out += opening_;
  out += "\"choices\":[{\"index\":0,";
  if (!chat_ || !text.empty()) {
    out += chat_ ? "\"delta\":{\"content\":\"" : "\"text\":\"";
    append_json(out, text);
    out += chat_ ? "\"}" : "\"";
  } else {
    out += "\"delta\":{}";
  }
  out += ",\"logprobs\":null,\"finish_reason\":";
  if (finish_reason != nullptr) {
    out += '"';
    out += finish_reason;
    out += "\"}]";
  } else {
    out += "null}]";
  }
  out += include_usage_ ? ",\"usage\":null}\n\n" : "}\n\n";
}

void Answer::finish(Finish reason, const Usage& usage) {
  emit(held_);
  held_.clear();
  const char* word = reason == Finish::kStop ? "stop" : "length";
  if (stream_) {
    finish_stream(word, usage);
  } else {
    finish_whole(word, usage);
  }
  sink_->done(job_, usage);
}

void Answer::finish_stream(const char* reason, const Usage& usage) {
  begin_stream();
  scratch_.clear();
  append_event(scratch_, "", reason);
  if (include_usage_) {
    scratch_ += "data: " + opening_ + "\"choices\":[],";
    append_usage(scratch_, usage);
    scratch_ += "}\n\n";
  }
  scratch_ += "data: [DONE]\n\n";
  sink_->chunk(job_, scratch_);
}

void Answer::finish_whole(const char* reason, const Usage& usage) {
  scratch_ = opening_;
  scratch_ += "\"choices\":[{\"index\":0,";
  scratch_ += chat_ ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"";
  append_json(scratch_, whole_);
  scratch_ += chat_ ? "\",\"refusal\":null}" : "\"";
  scratch_ += ",\"logprobs\":null,\"finish_reason\":\"";
  scratch_ += reason;
  scratch_ += "\"}],";
  append_usage(scratch_, usage);
  scratch_ += "}";
  sink_->head(job_, 200, "application/json", static_cast<int64_t>(scratch_.size()));
  sink_->chunk(job_, scratch_);
}

}  // namespace penstock::openai
