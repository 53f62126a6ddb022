#include "worker/pool/openai_fields.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "shared/base/nearest.h"
#include "shared/base/utf8.h"
#include "worker/pool/openai_messages.h"

namespace penstock::openai {
namespace {

using Name = std::string_view;

std::string named(Name name) { return std::string(name); }

// ---- numbers -----------------------------------------------------------------------------------

bool read_real(JsonReader& json, Value& value, Name name, double least, double most,
               std::optional<float>& out) {
  double number = 0;
  const bool fine = json.number(value, name, least, most, number);
  out = static_cast<float>(number);
  return fine;
}

bool read_count(JsonReader& json, Value& value, Name name, std::optional<uint32_t>& out) {
  int64_t count = 0;
  const bool fine = json.whole(value, name, 1, INT32_MAX, count);
  out = static_cast<uint32_t>(count);
  return fine;
}

// -1 and 0 are all.
bool read_top_k(JsonReader& json, Value& value, Name name, Draft& draft) {
  int64_t most = 0;
  const bool fine = json.whole(value, name, -1, INT32_MAX, most);
  draft.request.sampling.top_k = static_cast<int32_t>(std::max<int64_t>(most, 0));
  return fine;
}

bool read_min_tokens(JsonReader& json, Value& value, Name name, Draft& draft) {
  int64_t least = 0;
  const bool fine = json.whole(value, name, 0, INT32_MAX, least);
  draft.request.min_tokens = static_cast<uint32_t>(least);
  return fine;
}

bool read_seed(JsonReader& json, Value& value, Name name, Draft& draft) {
  uint64_t bits = 0;
  bool negative = false;
  const bool fine = json.integer(value, name, bits, negative);
  draft.request.seed = bits;
  return fine;
}

bool not_supported(JsonReader& json, Name name) {
  return json.refuse(name, named(name) + " is not supported here. Leave it out.");
}

// What shifts single tokens is the operator's to allow.
bool may_steer(const Draft& draft) { return draft.rules.steering || draft.overriding; }

bool read_penalty(JsonReader& json, Value& value, Name name, Draft& draft, float& out) {
  double number = 0;
  const bool fine = json.number(value, name, -2, 2, number);
  out = static_cast<float>(number);
  return fine && (number == 0 || may_steer(draft) || not_supported(json, name));
}

// ---- lists -------------------------------------------------------------------------------------

bool read_stop(JsonReader& json, Value& value, Name name, Draft& draft) {
  JsonType type;
  if (!json.type_of(value, type)) {
    return false;
  }
  draft.request.stop.clear();
  const auto read_one = [&](Value& element, Name param) {
    std::string text;
    if (!json.string(element, param, text)) {
      return false;
    }
    if (text.empty() || text.size() > kMaxStopBytes) {
      return json.refuse(name, named(param) + " must be of 1 to " + std::to_string(kMaxStopBytes) +
                                   " bytes, not " + std::to_string(text.size()) + ".");
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

bool read_stop_token_ids(JsonReader& json, Value& value, Name name, Draft& draft) {
  std::vector<int32_t>& ids = draft.request.stop_token_ids;
  ids.clear();
  return json.expect(value, name, JsonType::array, "an array of token ids") &&
         json.each_element(value, [&](size_t index, Value element) {
           int64_t id = 0;
           if (index == kMaxStopTokens) {
             return json.refuse(name, named(name) + " must hold at most " +
                                          std::to_string(kMaxStopTokens) + " ids.");
           }
           const bool fine = json.whole(element, named(name) + "[" + std::to_string(index) + "]", 0,
                                        INT32_MAX, id);
           ids.push_back(static_cast<int32_t>(id));
           return fine;
         });
}

bool read_bias(JsonReader& json, Name token, Value& value, std::vector<TokenBias>& biases) {
  const std::string param = "logit_bias." + named(token.substr(0, 16));
  int32_t id = -1;
  const char* const end = token.data() + token.size();
  const auto [stop, error] = std::from_chars(token.data(), end, id);
  if (error != std::errc{} || stop != end || id < 0) {
    return json.refuse(
        "logit_bias", "logit_bias must name tokens by their ids, not by '" +
                          named(token.substr(0, utf8_complete_prefix(token.substr(0, 64)))) + "'.");
  }
  double bias = 0;
  const bool fine = json.number(value, param, -100, 100, bias);
  std::erase_if(biases, [&](const TokenBias& each) { return each.token == id; });
  if (bias != 0) {
    biases.push_back({id, static_cast<float>(bias)});
  }
  return fine && (biases.size() <= kMaxBiases ||
                  json.refuse("logit_bias", "logit_bias must hold at most " +
                                                std::to_string(kMaxBiases) + " tokens."));
}

bool read_logit_bias(JsonReader& json, Value& value, Name name, Draft& draft) {
  std::vector<TokenBias>& biases = draft.request.logit_bias;
  biases.clear();
  return json.expect(value, name, JsonType::object, "an object of token ids") &&
         json.each_field(
             value,
             [&](Name token, Value field) { return read_bias(json, token, field, biases); }) &&
         (biases.empty() || may_steer(draft) || not_supported(json, name));
}

// ---- what the answer is to hold ----------------------------------------------------------------

bool read_stream_options(JsonReader& json, Value& value, Name name, Draft& draft) {
  if (!json.expect(value, name, JsonType::object, "an object")) {
    return false;
  }
  draft.has_stream_options = true;
  draft.request.include_usage = false;
  return json.each_field(value, [&](Name option, Value field) {
    bool null = false;
    if (option == "include_obfuscation") {  // padding against who listens in; there is none
      return json.skip(field, 2);
    }
    if (option != "include_usage") {
      return json.skip(field, 2) &&
             (draft.rules.lenient || refuse_unknown(json, "stream_options.", option,
                                                    {"include_usage", "include_obfuscation"}));
    }
    if (!json.is_null(field, null)) {
      return false;
    }
    draft.request.include_usage = false;
    return null || json.boolean(field, "stream_options.include_usage", draft.request.include_usage);
  });
}

// In a chat true or false; in a completion how many alternatives there are to be beside the chosen
// token.
bool read_logprobs(JsonReader& json, Value& value, Name name, Draft& draft) {
  JsonType type;
  if (!json.type_of(value, type)) {
    return false;
  }
  if (draft.request.chat || type == JsonType::boolean) {
    const bool fine = json.boolean(value, name, draft.request.logprobs);
    return fine && (draft.request.chat || !draft.request.logprobs ||
                    json.refuse(name, "logprobs must be a number on this path, not true."));
  }
  uint64_t alternatives = 0;
  bool negative = false;
  draft.request.logprobs = true;
  return json.integer(value, name, alternatives, negative) &&
         (alternatives == 0 ||
          json.refuse(name,
                      "logprobs must be 0: of each chosen token the probability is told, and of "
                      "no others."));
}

bool read_top_logprobs(JsonReader& json, Value& value, Name name, Draft&) {
  uint64_t alternatives = 0;
  bool negative = false;
  return json.integer(value, name, alternatives, negative) &&
         (alternatives == 0 ||
          json.refuse(name,
                      "top_logprobs must be 0: with logprobs, the probability of each chosen "
                      "token is told, and of no others."));
}

bool read_response_format(JsonReader& json, Value& value, Name name, Draft&) {
  JsonType kind;
  if (!json.type_of(value, kind)) {
    return false;
  }
  if (kind != JsonType::object) {
    bool empty = true;
    return json.skip(value, 2, &empty) && (empty || not_supported(json, name));
  }
  std::string type = "text";
  const bool fine = json.each_field(value, [&](Name field_name, Value field) {
    return field_name == "type" ? json.string(field, "response_format.type", type)
                                : json.skip(field, 3);
  });
  return fine && (type == "text" ||
                  json.refuse(name,
                              "response_format must be {\"type\":\"text\"}: no other format "
                              "can be promised here."));
}

// The job was routed by a model before it came here: the body's may be another.
bool read_model(JsonReader& json, Value& value, Name name, Draft& draft) {
  std::string model;
  return json.string(value, name, model) &&
         (!draft.overriding || model == draft.model ||
          json.refuse(name, "model can only be the one that the job is routed by."));
}

// ---- what is refused, and what has no effect ---------------------------------------------------

// n and best_of: one answer a request.
bool refuse_unless_one(JsonReader& json, Value& value, Name name, Draft&) {
  uint64_t count = 0;
  bool negative = false;
  return json.integer(value, name, count, negative) &&
         (count == 1 ||
          json.refuse(name, named(name) + " must be 1: one answer is made a request."));
}

// What would change the answer in a way no engine here can.
bool refuse_unless_empty(JsonReader& json, Value& value, Name name, Draft&) {
  bool empty = true;
  return json.skip(value, 2, &empty) && (empty || not_supported(json, name));
}

bool refuse_unless_true(JsonReader& json, Value& value, Name name, Draft&) {
  bool truth = false;
  return json.boolean(value, name, truth) && (truth || not_supported(json, name));
}

// tool_choice and function_call, where there is nothing to choose from.
bool refuse_unless_free(JsonReader& json, Value& value, Name name, Draft& draft) {
  JsonType type;
  if (!json.type_of(value, type)) {
    return false;
  }
  if (type != JsonType::string) {
    return refuse_unless_empty(json, value, name, draft);
  }
  std::string choice;
  return json.string(value, name, choice) &&
         (choice == "auto" || choice == "none" || not_supported(json, name));
}

bool read_modalities(JsonReader& json, Value& value, Name name, Draft& draft) {
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

// Labels, hints for caches and billing: whatever they hold, the answer is the same.
bool no_effect(JsonReader& json, Value& value, Name, Draft&) { return json.skip(value, 2); }

// ---- all of them -------------------------------------------------------------------------------

using J = JsonReader;
using V = Value;
using D = Draft;

// Sorted by name.
constexpr std::array kFields = {
    Field{"allowed_token_ids", kBoth, refuse_unless_empty},
    Field{"audio", kChat, refuse_unless_empty},
    Field{"bad_words", kBoth, refuse_unless_empty},
    Field{"best_of", kText, refuse_unless_one},
    Field{"cache_salt", kBoth, no_effect},
    Field{"echo", kText, refuse_unless_empty},
    Field{"frequency_penalty", kBoth,
          [](J& j, V& v, Name n, D& d) {
            return read_penalty(j, v, n, d, d.request.frequency_penalty);
          }},
    Field{"function_call", kChat, refuse_unless_free},
    Field{"functions", kChat, refuse_unless_empty},
    Field{"guided_choice", kBoth, refuse_unless_empty},
    Field{"guided_grammar", kBoth, refuse_unless_empty},
    Field{"guided_json", kBoth, refuse_unless_empty},
    Field{"guided_regex", kBoth, refuse_unless_empty},
    Field{"ignore_eos", kBoth,
          [](J& j, V& v, Name n, D& d) { return j.boolean(v, n, d.request.ignore_eos); }},
    Field{"include_stop_str_in_output", kBoth, refuse_unless_empty},
    Field{"logit_bias", kBoth, read_logit_bias},
    Field{"logprobs", kBoth, read_logprobs},
    Field{"max_completion_tokens", kBoth,
          [](J& j, V& v, Name n, D& d) { return read_count(j, v, n, d.max_completion_tokens); }},
    Field{"max_tokens", kBoth,
          [](J& j, V& v, Name n, D& d) { return read_count(j, v, n, d.request.max_tokens); }},
    Field{"messages", kChat,
          [](J& j, V& v, Name, D& d) {
            d.has_messages = true;
            return read_messages(j, v, d.request.messages);
          }},
    Field{"metadata", kBoth, no_effect},
    Field{"min_p", kBoth,
          [](J& j, V& v, Name n, D& d) {
            return read_real(j, v, n, 0, 1, d.request.sampling.min_p);
          }},
    Field{"min_tokens", kBoth, read_min_tokens},
    Field{"modalities", kChat, read_modalities},
    Field{"model", kBoth, read_model},
    Field{"n", kBoth, refuse_unless_one},
    Field{"parallel_tool_calls", kChat, no_effect},
    Field{"prediction", kChat, no_effect},
    Field{"presence_penalty", kBoth,
          [](J& j, V& v, Name n, D& d) {
            return read_penalty(j, v, n, d, d.request.presence_penalty);
          }},
    Field{"prompt", kText,
          [](J& j, V& v, Name, D& d) {
            d.has_prompt = true;
            return read_prompt(j, v, d.request.prompt);
          }},
    Field{"prompt_cache_key", kBoth, no_effect},
    Field{"prompt_cache_retention", kBoth, no_effect},
    Field{"reasoning_effort", kChat, refuse_unless_empty},
    Field{"repetition_penalty", kBoth,
          [](J& j, V& v, Name n, D& d) {
            return read_real(j, v, n, 0.01, 10, d.request.sampling.repetition_penalty);
          }},
    Field{"request_id", kBoth, no_effect},
    Field{"response_format", kBoth, read_response_format},
    Field{"safety_identifier", kBoth, no_effect},
    Field{"seed", kBoth, read_seed},
    Field{"service_tier", kBoth, no_effect},
    Field{"skip_special_tokens", kBoth, refuse_unless_true},
    Field{"stop", kBoth, read_stop},
    Field{"stop_token_ids", kBoth, read_stop_token_ids},
    Field{"store", kBoth, no_effect},
    Field{"stream", kBoth,
          [](J& j, V& v, Name n, D& d) { return j.boolean(v, n, d.request.stream); }},
    Field{"stream_options", kBoth, read_stream_options},
    Field{"structured_outputs", kBoth, refuse_unless_empty},
    Field{"suffix", kText, refuse_unless_empty},
    Field{"temperature", kBoth,
          [](J& j, V& v, Name n, D& d) {
            return read_real(j, v, n, 0, 2, d.request.sampling.temperature);
          }},
    Field{"tool_choice", kChat, refuse_unless_free},
    Field{"tools", kChat, refuse_unless_empty},
    Field{"top_k", kBoth, read_top_k},
    Field{"top_logprobs", kChat, read_top_logprobs},
    Field{"top_p", kBoth,
          [](J& j, V& v, Name n, D& d) {
            return read_real(j, v, n, 0, 1, d.request.sampling.top_p);
          }},
    Field{"use_beam_search", kBoth, refuse_unless_empty},
    Field{"user", kBoth, no_effect},
    Field{"verbosity", kChat, refuse_unless_empty},
    Field{"web_search_options", kChat, refuse_unless_empty},
};
constexpr auto kByName = [](const Field& a, const Field& b) { return a.name < b.name; };
static_assert(std::is_sorted(kFields.begin(), kFields.end(), kByName));
static_assert(kFields.size() <= 64, "each has a bit of its own");

}  // namespace

const Field* find_field(std::string_view name, Surface surface) {
  const auto* found =
      std::lower_bound(kFields.begin(), kFields.end(), Field{name, kBoth, nullptr}, kByName);
  return found != kFields.end() && found->name == name && (found->surface & surface) != 0 ? found
                                                                                          : nullptr;
}

uint64_t bit_of(const Field& field) { return uint64_t{1} << (&field - kFields.data()); }

bool refuse_unknown(JsonReader& json, std::string_view name, Surface surface) {
  if (find_field(name, kBoth) != nullptr) {
    return json.refuse(name, named(name) + " is a field of " +
                                 (surface == kChat ? "/v1/completions" : "/v1/chat/completions") +
                                 ", not of this path.");
  }
  std::vector<std::string> names;
  for (const Field& field : kFields) {
    if ((field.surface & surface) != 0) {
      names.emplace_back(field.name);
    }
  }
  return refuse_unknown(json, "", name, names);
}

bool refuse_unknown(JsonReader& json, std::string_view prefix, std::string_view name,
                    const std::vector<std::string>& known) {
  constexpr size_t kMaxShownBytes = 64;
  const std::string_view some = name.substr(0, kMaxShownBytes);
  const std::string shown = named(prefix) + named(some.substr(0, utf8_complete_prefix(some)));
  return json.refuse(shown, "'" + shown + "' is no field known here; the nearest that is: " +
                                named(prefix) + nearest(name, known) + ".");
}

}  // namespace penstock::openai
