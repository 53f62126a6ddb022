// Every field of a completion request that is known here, and what is made of it.
//
// A field is honoured, or it is refused if its value would change the answer, or it is one of those
// that never do (those that are read by no_effect in the source's table).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/pool/json_reader.h"
#include "worker/pool/openai.h"

namespace penstock::openai {

// What has been read so far.
struct Draft {
  CompletionRequest request;
  Rules rules;
  std::string_view model;   // the job was routed by
  bool overriding = false;  // it is the operator's override that is being read
  bool has_prompt = false;
  bool has_messages = false;
  bool has_stream_options = false;
  std::optional<uint32_t> max_completion_tokens;
  // Fields, as bits.
  uint64_t seen = 0;     // that had a value
  uint64_t nulled = 0;   // whose last value was null
  uint64_t ignored = 0;  // that are to be passed over
};

// Which path a field belongs to.
enum Surface : uint8_t { kText = 1, kChat = 2, kBoth = 3 };

struct Field {
  std::string_view name;
  Surface surface;  // on the other path nobody knows it
  // The value is not null. Leaves nothing of an earlier one.
  bool (*read)(JsonReader& json, Value& value, std::string_view name, Draft& draft);
};

// nullptr: no field of that name on this path.
const Field* find_field(std::string_view name, Surface surface);
// Its bit, one of its own.
uint64_t bit_of(const Field& field);

// A field of `name`, which nobody knows on this path: refused, with the nearest that is known.
// `prefix` is the object it was found in: "stream_options.", or "".
bool refuse_unknown(JsonReader& json, std::string_view prefix, std::string_view name,
                    const std::vector<std::string>& known);
// The same of a field at the top level of a body.
bool refuse_unknown(JsonReader& json, std::string_view name, Surface surface);

}  // namespace penstock::openai
