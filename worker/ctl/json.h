// Answers are JSON: checked as a whole (RFC 8259), then looked at member by member.
#pragma once

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::ctl {

using JsonElement = simdjson::dom::element;

// The object that all of `text` is; false when it is none, or not valid JSON. It lives as long as
// `parser`.
bool parse_object(simdjson::dom::parser& parser, std::string_view text, JsonElement& object);
bool is_object(std::string_view text);

// A member as people read it: text made printable, a number, yes or no. "-" when it is missing,
// null, or something else.
std::string cell(JsonElement object, std::string_view member);

// A member that is an object.
std::optional<JsonElement> object_of(JsonElement object, std::string_view member);

// What a member that is an array holds; nothing when it is none.
std::vector<JsonElement> elements_of(JsonElement object, std::string_view member);

// The number of that name, or `otherwise`.
double number_of(JsonElement object, std::string_view member, double otherwise = 0);
bool truth_of(JsonElement object, std::string_view member, bool otherwise);

}  // namespace penstock::ctl
