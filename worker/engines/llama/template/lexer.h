// Cuts a Jinja template into tokens, white space already trimmed as the tags ask: with trim_blocks
// and lstrip_blocks on, as Hugging Face transformers sets them.
//
// Source: Jinja 3.1, "Template Designer Documentation", Whitespace Control, and its lexer, whose
// rules on `-`, `+`, new lines and brackets within a tag are followed to the letter.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "shared/base/result.h"

namespace penstock::llama::jinja {

struct Token {
  enum class Kind {
    kData,      // text between tags
    kPrint,     // {{
    kPrintEnd,  // }}
    kBlock,     // {%
    kBlockEnd,  // %}
    kName,
    kString,  // its escapes resolved
    kInteger,
    kFloat,
    kOperator,  // "+", "==", "[" ...
    kEnd,       // of the template
  };
  Kind kind = Kind::kEnd;
  std::string text;
  int line = 1;
};

// The last token is kEnd. An Error says the line.
Result<std::vector<Token>> tokens_of(std::string_view source);

}  // namespace penstock::llama::jinja
