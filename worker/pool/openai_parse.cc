// The request half of openai.h: one table says which fields are read, how, and on which path.
#include <algorithm>
#include <array>
#include <utility>

#include "shared/base/utf8.h"
#include "worker/pool/json_reader.h"
#include "worker/pool/openai.h"
#include "worker/pool/openai_messages.h"

namespace penstock::openai {
namespace {

// What has been read so far.
struct Draft {
  CompletionRequest request;
  std::string_view model;   // the job was routed by
  bool overriding = false;  // it is the operator's override that is being read
  bool has_prompt = false;
  bool has_messages = false;
  bool has_stream_options = false;
  std::optional<uint32_t> max_completion_tokens;
  // Fields, as bits by their place in kFields.
  uint64_t seen = 0;     // that had a value
  uint64_t nulled = 0;   // whose last value was null
  uint64_t ignored = 0;  // that are to be passed over
};

using ReadField = bool (*)(JsonReader&, Value&, std::string_view name, Draft&);

bool read_prompt_field(JsonReader& json, Value& value, std::string_view, Draft& draft) {
  draft.has_prompt = true;
  return read_prompt(json, value, draft.request.prompt);
}

bool read_messages_field(JsonReader& json, Value& value, std::string_view, Draft& draft) {
  draft.has_messages = true;
  return read_messages(json, value, draft.request.messages);
}

bool read_count(JsonReader& json, Value& value, std::string_view name,
                std::optional<uint32_t>& out) {
  uint64_t count = 0;
  bool negative = false;
  if (!json.integer(value, name, count, negative)) {
    return false;
  }
  if (negative || count == 0 || count > INT32_MAX) {
    return json.refuse(name, std::string(name) + " must be between 1 and 2147483647.");
  }
  out = static_cast<uint32_t>(count);
  return true;
}

bool read_max_tokens(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  return read_count(json, value, name, draft.request.max_tokens);
}

bool read_max_completion_tokens(JsonReader& json, Value& value, std::string_view name,
                                Draft& draft) {
  return read_count(json, value, name, draft.max_completion_tokens);
}

bool read_temperature(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  double number = 0;
  const bool fine = json.number(value, name, 0, 2, number);
  draft.request.sampling.temperature = static_cast<float>(number);
  return fine;
}

bool read_top_p(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  double number = 0;
  const bool fine = json.number(value, name, 0, 1, number);
  draft.request.sampling.top_p = static_cast<float>(number);
  return fine;
}

bool read_seed(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  uint64_t bits = 0;
  bool negative = false;
  const bool fine = json.integer(value, name, bits, negative);
  draft.request.seed = bits;
  return fine;
}

bool read_stop(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  JsonType type;
  if (!json.type_of(value, type)) {
    return false;
  }
  draft.request.stop.clear();
  const auto read_one = [&](Value& element, std::string_view param) {
    std::string text;
    if (!json.string(element, param, text)) {
      return false;
    }
    if (text.empty() || text.size() > kMaxStopBytes) {
      return json.refuse(name, std::string(param) + " must be of 1 to " +
                                   std::to_string(kMaxStopBytes) + " bytes.");
    }
    draft.request.stop.push_back(std::move(text));
    return true;
  };
  if (type != JsonType::array) {
    return read_one(value, name);
  }
  return json.each_element(value, [&](size_t index, Value element) {
    return index < kMaxStops ? read_one(element, "stop[" + std::to_string(index) + "]")
                             : json.refuse(name, "stop must hold at most 4 strings.");
  });
}

bool read_stream(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  return json.boolean(value, name, draft.request.stream);
}

bool read_ignore_eos(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  return json.boolean(value, name, draft.request.ignore_eos);
}

bool read_stream_options(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  if (!json.expect(value, name, JsonType::object, "an object")) {
    return false;
  }
  draft.has_stream_options = true;
  draft.request.include_usage = false;
  return json.each_field(value, [&](std::string_view option, Value field) {
    bool null = false;
    if (option != "include_usage") {
      return json.skip(field, 2);
    }
    if (!json.is_null(field, null)) {
      return false;
    }
    draft.request.include_usage = false;
    return null || json.boolean(field, "stream_options.include_usage", draft.request.include_usage);
  });
}

// The job was routed by a model before it came here: the body's may be another.
bool read_model(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  std::string model;
  return json.string(value, name, model) &&
         (!draft.overriding || model == draft.model ||
          json.refuse(name, "model can only be the one that the job is routed by."));
}

// n and best_of: one answer a request.
bool refuse_unless_one(JsonReader& json, Value& value, std::string_view name, Draft&) {
  uint64_t count = 0;
  bool negative = false;
  return json.integer(value, name, count, negative) &&
         (count == 1 ||
          json.refuse(name, std::string(name) + " must be 1: one answer is made a request."));
}

// What would change the answer in a way no engine here can.
bool refuse_unless_empty(JsonReader& json, Value& value, std::string_view name, Draft&) {
  bool empty = true;
  return json.skip(value, 2, &empty) &&
         (empty || json.refuse(name, std::string(name) + " is not supported here. Leave it out."));
}

// logprobs of a text completion: even 0 asks for something.
bool refuse_unless_false(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  JsonType type;
  if (!json.type_of(value, type)) {
    return false;
  }
  return type == JsonType::number
             ? json.refuse(name, std::string(name) + " is not supported here. Leave it out.")
             : refuse_unless_empty(json, value, name, draft);
}

bool read_response_format(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  JsonType kind;
  if (!json.type_of(value, kind)) {
    return false;
  }
  if (kind != JsonType::object) {
    return refuse_unless_empty(json, value, name, draft);
  }
  std::string type = "text";
  const bool fine = json.each_field(value, [&](std::string_view field_name, Value field) {
    return field_name == "type" ? json.string(field, "response_format.type", type)
                                : json.skip(field, 3);
  });
  return fine && (type == "text" ||
                  json.refuse(name,
                              "response_format must be {\"type\":\"text\"}: no other format "
                              "can be promised here."));
}

bool read_modalities(JsonReader& json, Value& value, std::string_view name, Draft& draft) {
  JsonType type;
  if (!json.type_of(value, type)) {
    return false;
  }
  if (type != JsonType::array) {
    return refuse_unless_empty(json, value, name, draft);
  }
  return json.each_element(value, [&](size_t, Value element) {
    std::string modality;
    return json.string(element, name, modality) &&
           (modality == "text" || json.refuse(name, "modalities must be [\"text\"]."));
  });
}

enum Surface : uint8_t { kText = 1, kChat = 2, kBoth = 3 };

struct Field {
  std::string_view name;
  Surface surface;  // on the other path the field is one we do not know
  ReadField read;
};

// Sorted by name. A field that is not here is ignored.
constexpr std::array kFields = {
    Field{"audio", kChat, refuse_unless_empty},
    Field{"best_of", kText, refuse_unless_one},
    Field{"echo", kText, refuse_unless_empty},
    Field{"frequency_penalty", kBoth, refuse_unless_empty},
    Field{"functions", kChat, refuse_unless_empty},
    Field{"ignore_eos", kBoth, read_ignore_eos},
    Field{"logit_bias", kBoth, refuse_unless_empty},
    Field{"logprobs", kBoth, refuse_unless_false},
    Field{"max_completion_tokens", kBoth, read_max_completion_tokens},
    Field{"max_tokens", kBoth, read_max_tokens},
    Field{"messages", kChat, read_messages_field},
    Field{"modalities", kChat, read_modalities},
    Field{"model", kBoth, read_model},
    Field{"n", kBoth, refuse_unless_one},
    Field{"presence_penalty", kBoth, refuse_unless_empty},
    Field{"prompt", kText, read_prompt_field},
    Field{"response_format", kBoth, read_response_format},
    Field{"seed", kBoth, read_seed},
    Field{"stop", kBoth, read_stop},
    Field{"stream", kBoth, read_stream},
    Field{"stream_options", kBoth, read_stream_options},
    Field{"suffix", kText, refuse_unless_empty},
    Field{"temperature", kBoth, read_temperature},
    Field{"tools", kChat, refuse_unless_empty},
    Field{"top_logprobs", kChat, refuse_unless_empty},
    Field{"top_p", kBoth, read_top_p},
};
constexpr auto kByName = [](const Field& a, const Field& b) { return a.name < b.name; };
static_assert(std::is_sorted(kFields.begin(), kFields.end(), kByName));

// As much of a name as a message should hold.
std::string shown(std::string_view name) {
  constexpr size_t kMaxShownBytes = 64;
  return std::string(name.substr(0, utf8_complete_prefix(name.substr(0, kMaxShownBytes))));
}

const Field* find_field(std::string_view name, Surface surface) {
  const auto* found =
      std::lower_bound(kFields.begin(), kFields.end(), Field{name, kBoth, nullptr}, kByName);
  return found != kFields.end() && found->name == name && (found->surface & surface) != 0 ? found
                                                                                          : nullptr;
}

// A caller's field that is not known is of no effect, and so is null. An operator means something
// by it.
bool read_field(JsonReader& json, std::string_view name, Value value, Draft& draft) {
  const Field* field = find_field(name, draft.request.chat ? kChat : kText);
  if (field == nullptr) {
    return draft.overriding
               ? json.refuse(shown(name), "'" + shown(name) + "' is no field known here.")
               : json.skip(value, 2);
  }
  const uint64_t bit = uint64_t{1} << (field - kFields.begin());
  if ((draft.ignored & bit) != 0) {
    return json.skip(value, 2);
  }
  bool null = false;
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

Parser::Parser() : buffers_(std::make_unique<Buffers>()) {}
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

Parsed parse(const Request& request) { return Parser().parse(request); }

}  // namespace penstock::openai
