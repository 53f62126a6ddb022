// The request half of openai.h. Which fields are read, and how: openai_fields.h.
#include <algorithm>
#include <utility>

#include "worker/pool/json_reader.h"
#include "worker/pool/openai.h"
#include "worker/pool/openai_fields.h"

namespace penstock::openai {
namespace {

// Null is absent in a body. An operator means something by it.
bool read_field(JsonReader& json, std::string_view name, Value value, Draft& draft) {
  const Surface surface = draft.request.chat ? kChat : kText;
  const Field* field = find_field(name, surface);
  bool null = false;
  if (field == nullptr) {
    if (!json.is_null(value, null) || (!null && !json.skip(value, 2))) {
      return false;
    }
    return (!draft.overriding && (null || draft.rules.lenient)) ||
           refuse_unknown(json, name, surface);
  }
  const uint64_t bit = bit_of(*field);
  if ((draft.ignored & bit) != 0) {
    return json.skip(value, 2);
  }
  if (!json.is_null(value, null)) {
    return false;
  }
  if (null) {
    draft.nulled |= bit;
    return !draft.overriding || json.refuse(name, std::string(name) + " must not be null.");
  }
  draft.nulled &= ~bit;
  draft.seen |= bit;
  return field->read(json, value, field->name, draft);
}

// What concerns several fields.
bool settle(JsonReader& json, Draft& draft) {
  const CompletionRequest& request = draft.request;
  if (request.chat ? !draft.has_messages : !draft.has_prompt) {
    const char* missing = request.chat ? "messages" : "prompt";
    return json.refuse(missing, std::string(missing) + " is missing.");
  }
  if (draft.has_stream_options && !request.stream) {
    return json.refuse("stream_options", "stream_options may only be given with stream: true.");
  }
  const auto most = draft.max_completion_tokens ? draft.max_completion_tokens : request.max_tokens;
  if (!draft.overriding && most && request.min_tokens > *most) {
    return json.refuse("min_tokens", "min_tokens must be at most max_tokens, " +
                                         std::to_string(*most) + ", not " +
                                         std::to_string(request.min_tokens) + ".");
  }
  return true;
}

// The bound read so far, by either of its names; the newer one wins. None is left in the draft.
std::optional<uint32_t> take_bound(Draft& draft) {
  const auto older = std::exchange(draft.request.max_tokens, std::nullopt);
  const auto newer = std::exchange(draft.max_completion_tokens, std::nullopt);
  return newer.has_value() ? newer : older;
}

std::optional<uint32_t> lower(std::optional<uint32_t> a, std::optional<uint32_t> b) {
  return a.has_value() && b.has_value() ? std::min(*a, *b) : (a.has_value() ? a : b);
}

}  // namespace

struct Parser::Buffers {
  static constexpr size_t kKeptBytes = 1U << 20;  // simdjson holds about six times this
  simdjson::ondemand::parser json;
  std::string padded;

  // Adds what `text` says to the draft.
  std::optional<Failure> read(std::string_view text, Source source, Draft& draft);
  std::optional<Failure> read_override(std::string_view text, Draft& draft);
};

std::optional<Failure> Parser::Buffers::read(std::string_view text, Source source, Draft& draft) {
  padded.reserve(text.size() + simdjson::SIMDJSON_PADDING);
  padded.assign(text);
  JsonReader reader(json, padded.data(), padded.size(), source);
  const auto on_field = [&](std::string_view name, Value value) {
    return read_field(reader, name, value, draft);
  };
  bool fine = reader.each_top_field(on_field);
  if (const uint64_t absent = draft.seen & draft.nulled; fine && absent != 0) {
    // Null came last: once more, as if these fields had never been there.
    Draft anew;
    anew.request.chat = draft.request.chat;
    anew.rules = draft.rules;
    anew.model = draft.model;
    anew.ignored = absent;
    draft = std::move(anew);
    fine = reader.each_top_field(on_field);
  }
  if (fine && settle(reader, draft)) {
    draft.request.max_tokens = take_bound(draft);
    return std::nullopt;
  }
  return reader.take_failure();
}

// The body was read and is good.
std::optional<Failure> Parser::Buffers::read_override(std::string_view text, Draft& draft) {
  const auto asked = std::exchange(draft.request.max_tokens, std::nullopt);
  draft.has_stream_options = false;
  draft.seen = draft.nulled = draft.ignored = 0;  // null is refused there, and undoes nothing
  draft.overriding = true;
  auto failure = read(text, kOverride, draft);
  draft.request.max_tokens = lower(asked, draft.request.max_tokens);
  return failure;
}

Parser::Parser(Rules rules) : rules_(rules), buffers_(std::make_unique<Buffers>()) {}
Parser::~Parser() = default;
Parser::Parser(Parser&&) noexcept = default;
Parser& Parser::operator=(Parser&&) noexcept = default;

bool is_completions_path(std::string_view path) { return path.ends_with("/completions"); }

Parsed Parser::parse(const Request& request) {
  if (!is_completions_path(request.path)) {
    return Failure{404, "not_found",
                   "There is nothing at this path. Use /v1/completions or /v1/chat/completions."};
  }
  if (request.method != "POST") {
    return Failure{405, "method_not_allowed", "This path takes POST only."};
  }
  Draft draft;
  draft.request.chat = request.path.ends_with("/chat/completions");
  draft.rules = rules_;
  draft.model = request.model;
  auto failure = buffers_->read(request.body, kBody, draft);
  if (!failure && !request.override.empty()) {
    failure = buffers_->read_override(request.override, draft);
  }
  SamplingSettings& sampling = draft.request.sampling;
  if (sampling.top_p == 0) {  // only the likeliest token is left
    sampling.temperature = 0;
    sampling.top_p = 1;
  }
  if (buffers_->padded.capacity() > Buffers::kKeptBytes) {
    buffers_ = std::make_unique<Buffers>();
  }
  return failure ? Parsed(*std::move(failure)) : Parsed(std::move(draft.request));
}

SamplingSettings either(const SamplingSettings& first, const SamplingSettings& second) {
  const auto chosen = [](const auto& a, const auto& b) { return a ? a : b; };
  return {.temperature = chosen(first.temperature, second.temperature),
          .top_p = chosen(first.top_p, second.top_p),
          .top_k = chosen(first.top_k, second.top_k),
          .min_p = chosen(first.min_p, second.min_p),
          .repetition_penalty = chosen(first.repetition_penalty, second.repetition_penalty)};
}

Parsed parse(const Request& request, Rules rules) { return Parser(rules).parse(request); }

}  // namespace penstock::openai
