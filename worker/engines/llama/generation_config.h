// generation_config.json of a model folder: how its makers want tokens drawn where a request does
// not say, and the tokens that end a text. Many models name the end of a turn here only.
//
// do_sample: false is read as temperature 0. What would change the answers and is not implemented
// here (beams, and what else is listed in the source) is named in `unheeded`, for the log.
//
// Source: Hugging Face transformers, GenerationConfig.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shared/base/result.h"
#include "worker/pool/openai.h"

namespace penstock::llama {

struct GenerationConfig {
  openai::SamplingSettings defaults;
  std::vector<int32_t> eos;
  std::vector<std::string> unheeded;  // keys
};

// `text` is the file's content, `name` the file's name for messages. Token ids lie below
// `vocabulary`.
Result<GenerationConfig> parse_generation_config(const std::string& text, const std::string& name,
                                                 int64_t vocabulary);

// Reads the file of a model's folder. A folder without the file sets no defaults.
Result<GenerationConfig> load_generation_config(const std::string& folder, int64_t vocabulary);

// The defaults in words, "temperature 0.7, top_p 0.9"; empty if there are none.
std::string in_words(const openai::SamplingSettings& settings);

}  // namespace penstock::llama
