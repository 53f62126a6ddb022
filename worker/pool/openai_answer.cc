// The answer half of openai.h.
#include <sys/random.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "shared/base/bytes.h"
#include "shared/base/utf8.h"
#include "shared/http/problem.h"
#include "worker/pool/openai.h"

namespace penstock::openai {
namespace {

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
  http::append_json(out, model);
  out += "\",";
  return out;
}

size_t characters_in(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

// A token as text. One that is no whole characters by itself is written as OpenAI does, with its
// bytes in hex.
void append_token(std::string& out, std::string_view bytes, std::string_view prefix) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  if (utf8_first_invalid(bytes) == std::string_view::npos) {
    http::append_json(out, bytes);
  } else {
    out += prefix;
    for (const char byte : bytes) {
      out += "\\\\x";
      out += kHex[static_cast<uint8_t>(byte) >> 4];
      out += kHex[static_cast<uint8_t>(byte) & 15];
    }
  }
  out += '"';
}

// JSON has no infinity; OpenAI says -9999 of what is next to impossible.
void append_logprob(std::string& out, float logprob) {
  char text[32];
  const float told = std::isfinite(logprob) ? logprob : -9999;
  out.append(text, std::to_chars(text, text + sizeof text, told).ptr);
}

template <typename Tokens>
void append_chat_logprobs(std::string& out, const Tokens& tokens) {
  out += "{\"content\":[";
  for (const auto& token : tokens) {
    out += &token == &tokens.front() ? "{\"token\":" : ",{\"token\":";
    append_token(out, token.bytes, "");
    out += ",\"logprob\":";
    append_logprob(out, token.logprob);
    out += ",\"bytes\":[";
    for (size_t i = 0; i < token.bytes.size(); ++i) {
      out += (i == 0 ? "" : ",") + std::to_string(static_cast<uint8_t>(token.bytes[i]));
    }
    out += "],\"top_logprobs\":[]}";
  }
  out += "],\"refusal\":null}";
}

// Four lists, an entry of each a token.
template <typename Tokens>
void append_text_logprobs(std::string& out, const Tokens& tokens) {
  const auto list = [&](const char* name, const auto& append) {
    out += name;
    for (const auto& token : tokens) {
      out += &token == &tokens.front() ? "" : ",";
      append(token);
    }
    out += ']';
  };
  list("{\"tokens\":[", [&](const auto& each) { append_token(out, each.bytes, "bytes:"); });
  list(",\"token_logprobs\":[", [&](const auto& each) { append_logprob(out, each.logprob); });
  list(",\"text_offset\":[", [&](const auto& each) { out += std::to_string(each.offset); });
  out += ",\"top_logprobs\":null}";
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
      logprobs_(request.logprobs),
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

bool Answer::text(std::string_view piece, float logprob) {
  if (stopped_ || piece.empty()) {
    return !stopped_;
  }
  if (logprobs_) {
    drawn_.push_back({std::string(piece), logprob, text_bytes_, text_characters_});
    text_bytes_ += piece.size();
    text_characters_ += characters_in(piece);
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
  out_bytes_ += safe_text.size();
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

// Of the tokens whose text is out; those that are cut off by a stop string never are.
void Answer::append_logprobs(std::string& out) {
  const auto is_out = [this](const Drawn& each) {
    const uint64_t end = each.begin + each.bytes.size();
    return end <= out_bytes_ || (stopped_ && each.begin < out_bytes_);
  };
  std::vector<Drawn> tokens;
  while (!drawn_.empty() && is_out(drawn_.front())) {
    tokens.push_back(std::move(drawn_.front()));
    drawn_.pop_front();
  }
  if (tokens.empty()) {
    out += "null";
  } else if (chat_) {
    append_chat_logprobs(out, tokens);
  } else {
    append_text_logprobs(out, tokens);
  }
}

void Answer::append_event(std::string& out, std::string_view text, const char* finish_reason) {
  out += "data: ";
  out += opening_;
  out += "\"choices\":[{\"index\":0,";
  if (!chat_ || !text.empty()) {
    out += chat_ ? "\"delta\":{\"content\":\"" : "\"text\":\"";
    http::append_json(out, text);
    out += chat_ ? "\"}" : "\"";
  } else {
    out += "\"delta\":{}";
  }
  out += ",\"logprobs\":";
  append_logprobs(out);
  out += ",\"finish_reason\":";
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
  http::append_json(scratch_, whole_);
  scratch_ += chat_ ? "\",\"refusal\":null}" : "\"";
  scratch_ += ",\"logprobs\":";
  append_logprobs(scratch_);
  scratch_ += ",\"finish_reason\":\"";
  scratch_ += reason;
  scratch_ += "\"}],";
  append_usage(scratch_, usage);
  scratch_ += "}";
  sink_->head(job_, 200, "application/json", static_cast<int64_t>(scratch_.size()));
  sink_->chunk(job_, scratch_);
}

}  // namespace penstock::openai
