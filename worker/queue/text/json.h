// JSON text, written.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shared/http/problem.h"

namespace penstock::queue {

// A JSON string, quotes included; what is not UTF-8 is replaced.
inline std::string json_string(std::string_view text) {
  std::string out = "\"";
  http::append_json(out, text);
  out.push_back('"');
  return out;
}

// A JSON object, member by member, in the order they are added. Names need no escape.
class JsonObject {
 public:
  JsonObject& text(std::string_view name, std::string_view value) {
    return raw(name, json_string(value));
  }
  // null, where it is empty.
  JsonObject& text_or_null(std::string_view name, std::string_view value) {
    return value.empty() ? raw(name, "null") : text(name, value);
  }
  JsonObject& number(std::string_view name, int64_t value) {
    return raw(name, std::to_string(value));
  }
  JsonObject& boolean(std::string_view name, bool value) {
    return raw(name, value ? "true" : "false");
  }
  JsonObject& raw(std::string_view name, std::string_view json) {
    json_.append(json_.size() > 1 ? ",\"" : "\"").append(name).append("\":").append(json);
    return *this;
  }
  std::string done() { return json_ + "}"; }

 private:
  std::string json_ = "{";
};

class JsonList {
 public:
  void add(std::string_view json) { json_.append(json_.size() > 1 ? "," : "").append(json); }
  std::string done() { return json_ + "]"; }

 private:
  std::string json_ = "[";
};

}  // namespace penstock::queue
