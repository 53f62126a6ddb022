#include "worker/pool/openai_messages.h"

#include <algorithm>

namespace penstock::openai {
namespace {

// One of the parts of a message's content.
bool read_part(JsonReader& json, Value& value, const std::string& param, std::string& content) {
  std::string type;
  std::string text;
  bool has_text = false;
  if (!json.expect(value, param, JsonType::object, "an object with type and text")) {
    return false;
  }
  const bool fine = json.each_field(value, [&](std::string_view name, Value field) {
    if (name == "type") {
      return json.string(field, param + ".type", type);
    }
    if (name == "text") {
      has_text = true;
      return json.string(field, param + ".text", text);
    }
    return json.skip(field, 4);
  });
  if (fine && (type != "text" || !has_text)) {
    return json.refuse(param, param +
                                  " must be {\"type\":\"text\",\"text\":...}: only text can be "
                                  "read here.");
  }
  content += text;
  return fine;
}

bool read_content(JsonReader& json, Value& value, const std::string& param, Message& message,
                  bool& null) {
  JsonType type;
  message.content.clear();
  if (!json.is_null(value, null)) {
    return false;
  }
  if (null) {
    return true;
  }
  if (!json.type_of(value, type)) {
    return false;
  }
  if (type != JsonType::array) {
    return json.string(value, param, message.content);
  }
  return json.each_element(value, [&](size_t index, Value part) {
    return read_part(json, part, param + "[" + std::to_string(index) + "]", message.content);
  });
}

bool check_message(JsonReader& json, const std::string& param, const Message& message,
                   bool has_content) {
  constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant"};
  if (message.role.empty()) {
    return json.refuse(param + ".role", param + ".role is missing.");
  }
  if (std::find(std::begin(kRoles), std::end(kRoles), message.role) == std::end(kRoles)) {
    return json.refuse(param + ".role",
                       param + ".role must be system, developer, user or assistant.");
  }
  return has_content || message.role == "assistant" ||
         json.refuse(param + ".content", param + ".content is missing.");
}

bool read_message(JsonReader& json, Value& value, const std::string& param, Message& message) {
  if (!json.expect(value, param, JsonType::object, "an object with role and content")) {
    return false;
  }
  bool has_content = false;
  const bool fine = json.each_field(value, [&](std::string_view name, Value field) {
    if (name == "role") {
      return json.string(field, param + ".role", message.role);
    }
    if (name == "content") {
      bool null = false;
      const bool read = read_content(json, field, param + ".content", message, null);
      has_content = !null;
      return read;
    }
    bool empty = true;
    const bool skipped = json.skip(field, 3, &empty);
    return skipped && (empty || (name != "tool_calls" && name != "function_call") ||
                       json.refuse(param + "." + std::string(name),
                                   param + "." + std::string(name) + " is not supported here."));
  });
  return fine && check_message(json, param, message, has_content);
}

}  // namespace

bool read_prompt(JsonReader& json, Value& value, std::string& prompt) {
  JsonType type;
  if (!json.type_of(value, type)) {
    return false;
  }
  if (type != JsonType::array) {
    return json.string(value, "prompt", prompt);
  }
  size_t count = 0;
  const bool fine = json.each_element(value, [&](size_t index, Value element) {
    JsonType kind;
    if (!json.type_of(element, kind)) {
      return false;
    }
    if (kind == JsonType::number || kind == JsonType::array) {
      return json.refuse("prompt", "prompt must be text; token arrays are not supported here.");
    }
    count = index + 1;
    return count > 1
               ? json.refuse("prompt", "prompt must hold one string; send one request for each.")
               : json.string(element, "prompt[0]", prompt);
  });
  return fine && (count == 1 || json.refuse("prompt", "prompt must hold one string."));
}

bool read_messages(JsonReader& json, Value& value, std::vector<Message>& messages) {
  if (!json.expect(value, "messages", JsonType::array, "an array")) {
    return false;
  }
  messages.clear();
  const bool fine = json.each_element(value, [&](size_t index, Value element) {
    Message message;
    const bool read =
        read_message(json, element, "messages[" + std::to_string(index) + "]", message);
    messages.push_back(std::move(message));
    return read;
  });
  return fine &&
         (!messages.empty() || json.refuse("messages", "messages must hold at least one message."));
}

}  // namespace penstock::openai
