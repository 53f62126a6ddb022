// How many tokens a server says it used, in the shapes of OpenAI, Anthropic, Ollama and TGI.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>

namespace penstock::http_engine {

// Nothing where it is not told. A count that cannot be one (negative, a fraction, text, 2^40 or
// more) is not told, and `lies` is set.
struct ToldUsage {
  std::optional<uint64_t> prompt;
  std::optional<uint64_t> completion;
  bool lies = false;

  // Takes over what is told later: servers tell running totals, which are not to be added up.
  void update(const ToldUsage& later);
};

// The usage that one event, line or whole answer tells of; nothing: it tells of none.
std::optional<ToldUsage> read_usage(simdjson::dom::object object);

}  // namespace penstock::http_engine
