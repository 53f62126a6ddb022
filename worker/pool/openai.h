// The OpenAI completions surface, shared by every engine that makes text.
//
// parse() reads the body of POST /v1/completions and POST /v1/chat/completions; Answer writes what
// the official clients expect back, whole (one JSON object) or streamed (server-sent events ending
// in [DONE]).
//
// Source: OpenAI API reference, "Completions" and "Chat"; the event stream format is WHATWG
// HTML, 9.2.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "worker/pool/engine.h"

namespace penstock::openai {

struct Message {
  std::string role;     // system, developer, user, assistant
  std::string content;  // text parts joined
};

// A completion request, every field checked and within its range.
struct CompletionRequest {
  bool chat = false;
  std::string prompt;                  // completions: the text
  std::vector<Message> messages;       // chat: at least one
  std::optional<uint32_t> max_tokens;  // none: as many as the engine's context allows
  float temperature = 1.0F;            // 0 .. 2; 0 is greedy
  float top_p = 1.0F;                  // 0 < top_p <= 1
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;  // at most 4, none empty
  bool ignore_eos = false;        // extension also known to vLLM: generate exactly max_tokens
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
};

// Reads the request; a Failure names the field (param) and, for malformed JSON, the byte offset.
// What Penstock cannot honour (n > 1, logprobs, tools ...) is refused, not ignored.
std::variant<CompletionRequest, Failure> parse(const Request& request);

enum class Finish { kStop, kLength };

// One job's answer on its way out. Holds back text that may yet turn out to be the start of a stop
// string, and bytes that are not yet a whole UTF-8 character.
class Answer {
 public:
  // `model` is echoed to the caller. `sink` must outlive this.
  Answer(JobNumber job, const CompletionRequest& request, std::string_view model,
         int64_t created_unix_s, Sink& sink);

  // Text of one more token. False when a stop string is now complete: the caller ends the job with
  // finish(kStop, ...).
  bool text(std::string_view piece);

  // Ends the answer: flushes, writes usage and [DONE], calls sink.done(). Nothing may follow.
  void finish(Finish reason, const Usage& usage);

 private:
  void emit(std::string_view safe_text);
  void begin_stream();

  JobNumber job_;
  Sink& sink_;
  bool chat_;
  bool stream_;
  bool include_usage_;
  bool head_sent_ = false;
  std::string id_;  // "cmpl-…" / "chatcmpl-…"
  std::string model_;
  int64_t created_unix_s_;
  std::vector<std::string> stop_;
  std::string held_;   // not yet sent: possible stop prefix or split character
  std::string whole_;  // not streaming: the text so far
};

}  // namespace penstock::openai
