#include "worker/ctl/json.h"

#include <cstdio>

#include "shared/http/problem.h"
#include "worker/ctl/table.h"
#include "worker/ctl/verbatim_json.h"

namespace penstock::ctl {

using simdjson::SUCCESS;

bool parse_object(simdjson::dom::parser& parser, std::string_view text, JsonElement& object) {
  return parser.parse(text.data(), text.size()).get(object) == SUCCESS && object.is_object();
}

bool is_object(std::string_view text) { return bool{VerbatimObject::read(text)}; }

std::string cell(JsonElement object, std::string_view member) {
  JsonElement value;
  std::string_view text;
  int64_t whole = 0;
  double number = 0;
  bool truth = false;
  if (object.at_key(member).get(value) != SUCCESS) {
    return "-";
  }
  if (value.get(text) == SUCCESS) {
    return printable(text);
  }
  if (value.get(whole) == SUCCESS) {
    return std::to_string(whole);
  }
  if (value.get(number) == SUCCESS) {
    char out[32];
    std::snprintf(out, sizeof out, "%.6g", number);
    return out;
  }
  return value.get(truth) == SUCCESS ? (truth ? "yes" : "no") : "-";
}

std::string json_text(std::string_view text) {
  std::string out(text.size() * 6 + 2, '"');
  char* const end = http::escape_json(text, out.data() + 1, out.data() + out.size() - 1);
  out.resize(static_cast<size_t>(end - out.data()));
  out.push_back('"');
  return out;
}

std::optional<JsonElement> object_of(JsonElement object, std::string_view member) {
  JsonElement value;
  const bool found = object.at_key(member).get(value) == SUCCESS && value.is_object();
  return found ? std::optional(value) : std::nullopt;
}

std::vector<JsonElement> elements_of(JsonElement object, std::string_view member) {
  simdjson::dom::array array;
  if (object.at_key(member).get(array) != SUCCESS) {
    return {};
  }
  return {array.begin(), array.end()};
}

double number_of(JsonElement object, std::string_view member, double otherwise) {
  double number = 0;
  return object.at_key(member).get(number) == SUCCESS ? number : otherwise;
}

bool truth_of(JsonElement object, std::string_view member, bool otherwise) {
  bool truth = false;
  return object.at_key(member).get(truth) == SUCCESS ? truth : otherwise;
}

}  // namespace penstock::ctl
