// What a server tells in one event of a stream, in one line, or in a whole answer: whether it is a
// part of the answer, whether it ends it, what was used, and whether it is an error. These shapes
// are known: OpenAI's completions, chats, responses and embeddings, Anthropic's messages, Ollama,
// TGI, KServe's generate. Any other shape is a part of the answer.
//
// Sources: the API references of OpenAI and Anthropic, Ollama's docs/api.md, TGI's OpenAPI file,
// Triton's extension_generate.md.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "worker/engines/http/told_error.h"
#include "worker/engines/http/told_usage.h"

namespace penstock::http_engine {

struct Told {
  bool readable = false;          // it is JSON; else nothing of this is known
  bool content = false;           // a part of the answer
  bool text = false;              // of a shape that makes text
  bool choices = false;           // OpenAI's: an answer ends with finish reasons, and [DONE]
  bool ends = false;              // nothing of the answer follows: message_stop, "done": true
  bool must_end = false;          // of a shape that says when it ends
  bool null_usage = false;        // it has a usage, which is null
  bool only_usage = false;        // OpenAI's last event, of usage and no choices
  size_t text_bytes = 0;          // of text that was made
  bool all_so_far = false;        // ... of which that is all, not what is new
  std::vector<int64_t> finished;  // choices that have their finish reason
  std::optional<ToldUsage> usage;
  std::optional<ToldError> error;
};

// A reader that keeps its buffers between calls. For one thread.
class TellTale {
 public:
  // `type` is the event's own, where it has one. `is_error`: see Event.
  Told event(std::string_view data, std::string_view type = {}, bool is_error = false);
  // A whole answer of one JSON value.
  Told answer(std::string_view json);

 private:
  simdjson::dom::parser parser_;
};

}  // namespace penstock::http_engine
