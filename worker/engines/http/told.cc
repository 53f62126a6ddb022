#include "worker/engines/http/told.h"

namespace penstock::http_engine {
namespace {

using simdjson::SUCCESS;
using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr int kMaxDepth = 16;

bool has(object from, std::string_view name) {
  element value;
  return from[name].get(value) == SUCCESS;
}

std::string_view text_in(object from, std::string_view name) {
  std::string_view text;
  return from[name].get(text) == SUCCESS ? text : std::string_view();
}

bool is_set(object from, std::string_view name) {
  element value;
  return from[name].get(value) == SUCCESS && !value.is_null();
}

// Bytes of all texts in it but those that only label it.
size_t texts_in(element value, int depth = 0) {
  std::string_view text;
  array list;
  object fields;
  size_t bytes = 0;
  if (value.get(text) == SUCCESS) {
    return text.size();
  }
  if (depth == kMaxDepth) {
    return 0;
  }
  if (value.get(list) == SUCCESS) {
    for (const element each : list) {
      bytes += texts_in(each, depth + 1);
    }
  } else if (value.get(fields) == SUCCESS) {
    for (const auto& [name, each] : fields) {
      bytes += name == "role" || name == "type" || name == "id" ? 0 : texts_in(each, depth + 1);
    }
  }
  return bytes;
}

bool is_empty(element value) {
  std::string_view text;
  array list;
  object fields;
  return value.is_null() || (value.get(text) == SUCCESS && text.empty()) ||
         (value.get(list) == SUCCESS && list.begin() == list.end()) ||
         (value.get(fields) == SUCCESS && fields.begin() == fields.end());
}

// A chat's delta, or message, that has more than who speaks.
bool says_something(object from) {
  for (const auto& [name, value] : from) {
    if (name != "role" && !is_empty(value)) {
      return true;
    }
  }
  return false;
}

void read_choice(object choice, Told& told) {
  int64_t told_index = 0;
  const int64_t index = choice["index"].get(told_index) == SUCCESS ? told_index : 0;
  for (const char* const name : {"delta", "message"}) {
    object inner;
    if (choice[name].get(inner) == SUCCESS && says_something(inner)) {
      told.content = true;
      told.text_bytes += texts_in(choice[name].value_unsafe());
    }
  }
  if (const std::string_view text = text_in(choice, "text"); !text.empty()) {
    told.content = true;
    told.text_bytes += text.size();
  }
  if (is_set(choice, "finish_reason")) {
    told.content = true;
    told.finished.push_back(index);
  }
}

void read_choices(object from, array choices, Told& told) {
  told.text = told.choices = told.must_end = true;
  for (const element each : choices) {
    object choice;
    if (each.get(choice) == SUCCESS) {
      read_choice(choice, told);
    }
  }
  told.null_usage = has(from, "usage") && !is_set(from, "usage");
  told.only_usage = choices.begin() == choices.end() && is_set(from, "usage");
}

// Anthropic's, and OpenAI's responses: each event has a type.
bool read_typed(object from, std::string_view type, Told& told) {
  object block;
  element delta;
  const bool anthropic = type.starts_with("message_") || type.starts_with("content_block_");
  const bool response = type.starts_with("response.");
  if (type == "ping") {
    return true;
  }
  if (!anthropic && !response) {
    return false;
  }
  told.text = told.must_end = true;
  if (from["delta"].get(delta) == SUCCESS) {
    told.text_bytes = type == "message_delta" ? 0 : texts_in(delta);
  }
  if (response) {
    told.ends =
        type == "response.completed" || type == "response.incomplete" || type == "response.failed";
    told.content =
        type != "response.created" && type != "response.in_progress" && type != "response.queued";
    return true;
  }
  told.ends = type == "message_stop";
  const bool says = from["content_block"].get(block) == SUCCESS && !text_in(block, "name").empty();
  told.content = type != "message_start" && (type != "content_block_start" || says);
  return true;
}

// TGI's, Triton's and Ollama's.
void read_others(object from, Told& told) {
  object inner;
  if (from["token"].get(inner) == SUCCESS) {
    told.text = told.must_end = true;
    told.text_bytes = text_in(inner, "text").size();
    told.ends = is_set(from, "generated_text");
  } else if (has(from, "text_output")) {
    told.text = told.all_so_far = true;
    told.text_bytes = texts_in(from["text_output"].value_unsafe());
  } else if (has(from, "done") && (has(from, "response") || has(from, "message"))) {
    bool done = false;
    told.text = told.must_end = true;
    told.ends = from["done"].get(done) == SUCCESS && done;
    told.text_bytes = text_in(from, "response").size() + text_in(from, "thinking").size();
    if (from["message"].get(inner) == SUCCESS) {
      told.text_bytes += texts_in(from["message"].value_unsafe());
    }
  } else if (is_set(from, "generated_text")) {
    told.text = true;
    told.text_bytes = text_in(from, "generated_text").size();
  }
  told.content = true;
}

Told read(object from, std::string_view type) {
  Told told{.readable = true};
  array choices;
  told.error = read_error(from);
  told.usage = read_usage(from);
  if (type.empty() || type == "message") {
    type = text_in(from, "type");
  }
  if (from["choices"].get(choices) == SUCCESS) {
    read_choices(from, choices, told);
  } else if (!read_typed(from, type, told)) {
    read_others(from, told);
  }
  told.content = told.content && !told.error;
  return told;
}

}  // namespace

Told TellTale::event(std::string_view data, std::string_view type, bool is_error) {
  element value;
  object from;
  if (parser_.parse(data.data(), data.size()).get(value) != SUCCESS) {
    return {.content = data.find_first_not_of(" \t\r\n") != data.npos};
  }
  if (is_error) {
    return {.readable = true, .error = error_of(value)};
  }
  return value.get(from) == SUCCESS ? read(from, type) : Told{.readable = true, .content = true};
}

Told TellTale::answer(std::string_view json) {
  element value;
  object from;
  array list;
  if (parser_.parse(json.data(), json.size()).get(value) != SUCCESS) {
    return {};
  }
  if (value.get(from) != SUCCESS) {
    Told told{.readable = true, .content = true};
    // TGI's /generate in a list of one.
    if (value.get(list) == SUCCESS && list.begin() != list.end() &&
        list.at(0).get(from) == SUCCESS && has(from, "generated_text")) {
      read_others(from, told);
      told.usage = read_usage(from);
    }
    return told;
  }
  Told told = read(from, "");
  if (element content; text_in(from, "type") == "message") {
    told.text = told.content = true;  // Anthropic's
    told.text_bytes = from["content"].get(content) == SUCCESS ? texts_in(content) : 0;
  } else if (text_in(from, "object") == "response") {
    told.text = told.content = true;  // OpenAI's
    told.text_bytes = has(from, "output") ? texts_in(from["output"].value_unsafe()) : 0;
  }
  told.content = told.content && !told.error;
  return told;
}

}  // namespace penstock::http_engine
