// What a model folder says of how the model is spoken to: its chat template, and the tokens that
// the template writes by name.
//
// The template is chat_template.jinja, else the "chat_template" of tokenizer_config.json (a text,
// or a list of named ones, of which "default" counts), else that of chat_template.json.
//
// Source: Hugging Face transformers, PreTrainedTokenizerBase and ProcessorMixin.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shared/base/result.h"

namespace penstock::llama {

struct ChatFiles {
  std::string source;  // of the template; empty if the model has none
  std::string file;    // it is from, for messages
  // bos_token, eos_token ... of tokenizer_config.json.
  std::vector<std::pair<std::string, std::string>> tokens;

  std::string token(const std::string& name) const;  // empty if it is not there
};

// An Error names the file.
Result<ChatFiles> load_chat_files(const std::string& folder);

}  // namespace penstock::llama
