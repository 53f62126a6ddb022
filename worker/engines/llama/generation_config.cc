#include "worker/engines/llama/generation_config.h"

#include <algorithm>
#include <cstdio>

#include "worker/engines/llama/json_keys.h"

namespace penstock::llama {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

// Of effect if set, and to another value than this.
struct Unheeded {
  const char* key;
  double harmless;
};
constexpr Unheeded kUnheeded[] = {
    {"num_beams", 1},
    {"num_beam_groups", 1},
    {"penalty_alpha", 0},
    {"typical_p", 1},
    {"epsilon_cutoff", 0},
    {"eta_cutoff", 0},
    {"diversity_penalty", 0},
    {"min_length", 0},
    {"encoder_repetition_penalty", 1},
    {"min_new_tokens", 0},
    {"bad_words_ids", 0},
    {"no_repeat_ngram_size", 0},
    {"suppress_tokens", 0},
    {"sequence_bias", 0},
    {"begin_suppress_tokens", 0},
    {"forced_bos_token_id", -1},
};

std::optional<float> fraction(Keys& keys, const char* key, double low, double high) {
  return keys.find(key) ? std::optional(static_cast<float>(keys.number(key, low, high)))
                        : std::nullopt;
}

void read_defaults(Keys& keys, openai::SamplingSettings& defaults) {
  defaults.temperature = fraction(keys, "temperature", 0, 100);
  if (!keys.boolean("do_sample", true)) {
    defaults.temperature = 0;
  }
  defaults.top_p = fraction(keys, "top_p", 0, 1);
  if (defaults.top_p == 0) {  // only the likeliest is left
    defaults.top_p.reset();
    defaults.top_k = 1;
  } else if (keys.find("top_k")) {
    defaults.top_k =
        static_cast<int32_t>(std::max<int64_t>(keys.integer("top_k", -1, INT32_MAX), 0));
  }
  defaults.min_p = fraction(keys, "min_p", 0, 1);
  defaults.repetition_penalty = fraction(keys, "repetition_penalty", 1e-3, 1e3);
}

}  // namespace

Result<GenerationConfig> parse_generation_config(const std::string& text, const std::string& name,
                                                 int64_t vocabulary) {
  simdjson::dom::parser parser;
  const auto root = parse_json_object(parser, text, name);
  if (!root) {
    return root.error();
  }
  Keys keys(*root, name);
  GenerationConfig config;
  read_defaults(keys, config.defaults);
  config.eos = keys.ids("eos_token_id", vocabulary - 1);
  for (const Unheeded& each : kUnheeded) {
    const auto value = keys.find(each.key);
    double number = 0;
    if (value && (value->get(number) != simdjson::SUCCESS || number != each.harmless)) {
      config.unheeded.emplace_back(each.key);
    }
  }
  if (!keys.error().empty()) {
    return Error{keys.error()};
  }
  return config;
}

Result<GenerationConfig> load_generation_config(const std::string& folder, int64_t vocabulary) {
  const std::string path = folder + "/generation_config.json";
  const auto text = read_file_if_there(path, kMaxFileBytes);
  if (!text) {
    return text.error();
  }
  return *text ? parse_generation_config(**text, path, vocabulary)
               : Result<GenerationConfig>(GenerationConfig{});
}

std::string in_words(const openai::SamplingSettings& settings) {
  std::string words;
  const auto add = [&](const char* name, const auto& value) {
    if (value) {
      char number[32];
      std::snprintf(number, sizeof number, "%g", static_cast<double>(*value));
      words += std::string(words.empty() ? "" : ", ") + name + " " + number;
    }
  };
  add("temperature", settings.temperature);
  add("top_p", settings.top_p);
  add("top_k", settings.top_k);
  add("min_p", settings.min_p);
  add("repetition_penalty", settings.repetition_penalty);
  return words;
}

}  // namespace penstock::llama
