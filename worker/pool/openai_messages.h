// What a model is asked: the prompt of a completion, the messages of a chat. Parts of
// openai::parse().
#pragma once

#include <string>
#include <vector>

#include "worker/pool/json_reader.h"
#include "worker/pool/openai.h"

namespace penstock::openai {

// A string, or an array of exactly one. Token arrays are refused.
bool read_prompt(JsonReader& json, Value& value, std::string& prompt);

// At least one {role, content}; content is a string, or an array of text parts that are joined. An
// assistant's may be null or missing.
bool read_messages(JsonReader& json, Value& value, std::vector<Message>& messages);

}  // namespace penstock::openai
