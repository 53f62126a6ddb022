// The errors that servers tell in a body, whatever the status was, and what each means.
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

  // Whether all further requests fail too, until somebody pays.
  bool out_of_quota() const;
};

// The error that one event, line or whole answer tells of; nothing: there is none.
std::optional<ToldError> read_error(simdjson::dom::object object);
// The error in the value of an event's own field `error`.
ToldError error_of(simdjson::dom::element value);

}  // namespace penstock::http_engine
