// The errors that servers tell in a body, whatever their status was, and what each amounts to.
#pragma once

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

namespace penstock::http_engine {

struct ToldError {
  int status = 0;       // that it amounts to: by its code, else by its type; 0: neither says one
  std::string type;     // "overloaded_error"
  std::string code;     // "insufficient_quota", "503"
  std::string message;  // for people
  std::string json;     // the object, or text, that tells it

  // More of the same fails as well, until somebody pays.
  bool out_of_quota() const;
};

// Of one event, line or whole answer; nothing: it tells of none.
std::optional<ToldError> read_error(simdjson::dom::object object);
// Of what stood in an event's own field called error.
ToldError error_of(simdjson::dom::element value);

}  // namespace penstock::http_engine
