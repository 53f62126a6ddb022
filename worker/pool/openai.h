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
#include <deque>
#include <memory>
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

// How tokens are drawn, as far as somebody said so: the caller, the operator, or the model's own
// files. What nobody said is left to the engine.
struct SamplingSettings {
  std::optional<float> temperature;         // 0 or more; 0 is greedy
  std::optional<float> top_p;               // 0 < top_p <= 1
  std::optional<int32_t> top_k;             // 0: all
  std::optional<float> min_p;               // 0 .. 1; 0: off
  std::optional<float> repetition_penalty;  // more than 0; 1: off
};

// What `first` says, and where it is silent what `second` does.
SamplingSettings either(const SamplingSettings& first, const SamplingSettings& second);

// Shifts the logit of one token.
struct TokenBias {
  int32_t token;
  float bias;  // -100 .. 100
};

// A completion request, every field checked and within its range. Token ids are 0 or more; which
// there are is the engine's to know.

struct CompletionRequest {
  bool chat = false;
  std::string prompt;                  // completions: the text
  std::vector<Message> messages;       // chat: at least one
  std::optional<uint32_t> max_tokens;  // none: the engine's default
  SamplingSettings sampling;           // a top_p of 0 was read as temperature 0
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;        // at most 4, none empty, each at most kMaxStopBytes
  bool ignore_eos = false;              // extension also known to vLLM: generate exactly max_tokens
  uint32_t min_tokens = 0;              // before these are drawn, no token ends the answer
  std::vector<int32_t> stop_token_ids;  // each ends the answer, and is not part of it
  std::vector<TokenBias> logit_bias;    // each token once
  float presence_penalty = 0;           // -2 .. 2
  float frequency_penalty = 0;
  bool logprobs = false;  // of the chosen tokens
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
};

constexpr size_t kMaxStops = 4;
constexpr size_t kMaxStopBytes = 1024;  // bounds what a stream holds back
constexpr size_t kMaxStopTokens = 4096;
constexpr size_t kMaxBiases = 1024;
constexpr int kMaxDepth = 64;  // of nested JSON values

// What an operator may say of all requests to a worker.
struct Rules {
  bool lenient = false;   // fields that nobody knows are passed over, not refused
  bool steering = false;  // logit_bias, frequency_penalty and presence_penalty may be used
};

using Parsed = std::variant<CompletionRequest, Failure>;

// Reads requests; keeps its buffers from one to the next, up to a bound. Not for several threads.
//
// A Failure names the field (param), what was given and what would be right, and for malformed JSON
// the byte offset. Every field is honoured, or refused if its value would change the answer, or one
// of those that never do (openai_fields.cc has them all). A field that is none of these is refused
// with the name of the nearest, unless Rules are lenient. A field that is null is read as absent;
// of a field that comes twice the last one counts.
//
// Request::override is read after a body that is good by itself, by the same rules but stricter,
// since an operator wrote it: it may hold known fields only, none null. Its fields take the place
// of the body's, but a bound on tokens only ever lowers. What is wrong with it is a 400 that says
// so.
class Parser {
 public:
  explicit Parser(Rules rules = {});
  ~Parser();
  Parser(Parser&&) noexcept;
  Parser& operator=(Parser&&) noexcept;

  Parsed parse(const Request& request);

 private:
  struct Buffers;
  Rules rules_;
  std::unique_ptr<Buffers> buffers_;
};

// The same for callers that read few requests.
Parsed parse(const Request& request, Rules rules = {});

// True for /v1/completions and /v1/chat/completions, wherever they are mounted.
bool is_completions_path(std::string_view path);

enum class Finish { kStop, kLength };

// One job's answer on its way out. Holds back text that may yet turn out to be the start of a stop
// string, and bytes that are not yet a whole UTF-8 character. A chat's answer begins with its first
// word: white space before it belongs to the form the model was asked in. The text that goes out
// does not depend on how it was cut into pieces.
class Answer {
 public:
  // `model` is echoed to the caller. `sink` must outlive this. A streamed answer's head goes out
  // here, so that the caller sees that its job has started.
  Answer(JobNumber job, const CompletionRequest& request, std::string_view model,
         int64_t created_unix_s, Sink& sink);

  // Text of one more token, and the logarithm of its probability, which is told if the request
  // wants it. False when a stop string is now complete: the caller ends the job with finish(kStop,
  // ...); further text is dropped.
  bool text(std::string_view piece, float logprob = 0);

  // Ends the answer: flushes, writes usage and [DONE], calls sink.done(). Nothing may follow.
  void finish(Finish reason, const Usage& usage);

 private:
  // A token whose text is on its way.
  struct Drawn {
    std::string bytes;
    float logprob;
    uint64_t begin;   // in bytes of all text
    uint64_t offset;  // ... and in characters
  };
  void begin_stream();
  void emit(std::string_view safe_text);
  bool cut_at_stop();
  void append_event(std::string& out, std::string_view text, const char* finish_reason);
  void append_logprobs(std::string& out);
  void finish_stream(const char* reason, const Usage& usage);
  void finish_whole(const char* reason, const Usage& usage);

  JobNumber job_;
  Sink* sink_;
  bool chat_;
  bool stream_;
  bool stream_begun_ = false;
  bool word_begun_;  // what comes now is shown as it is
  bool include_usage_;
  bool logprobs_;
  bool stopped_ = false;
  std::string opening_;  // of every JSON object of this answer: id ... model
  std::vector<std::string> stop_;
  std::string held_;   // not yet sent: possible stop prefix or split character
  std::string whole_;  // not streaming: the text so far
  // Only with logprobs:
  std::deque<Drawn> drawn_;
  uint64_t text_bytes_ = 0;  // that came
  uint64_t text_characters_ = 0;
  uint64_t out_bytes_ = 0;  // that are not held any more
  std::string scratch_;     // the event being written
};

}  // namespace penstock::openai
