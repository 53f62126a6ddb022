#include "worker/engines/http/told_error.h"

#include <cctype>
#include <charconv>

namespace penstock::http_engine {
namespace {

using simdjson::dom::element;
using simdjson::dom::object;

struct Known {
  std::string_view word;  // of a code or type, in small letters and without '_'
  int status;
};
// OpenAI, Anthropic, vLLM (its exceptions' names), llama.cpp, TGI.
constexpr Known kKnown[] = {
    {"overloaded", 529},        {"ratelimit", 429},          {"toomanyrequests", 429},
    {"insufficientquota", 429}, {"serviceunavailable", 503}, {"unavailable", 503},
    {"invalidrequest", 400},    {"badrequest", 400},         {"validation", 400},
    {"contextlength", 400},     {"exceedcontextsize", 400},  {"authentication", 401},
    {"permission", 403},        {"notfound", 404},           {"requesttoolarge", 413},
    {"notsupported", 501},
};

std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 100)) {
    if (c != '_' && c != '-' && c != ' ') {
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  return out;
}

int status_of_word(std::string_view word) {
  const std::string text = plain(word);
  for (const Known& known : kKnown) {
    if (text.starts_with(known.word)) {
      return known.status;
    }
  }
  return 0;
}

int status_of_number(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc{} && end == text.data() + text.size();
  return whole && number >= 400 && number <= 599 ? number : 0;
}

// A text or a number, as text.
std::string scalar(object from, std::string_view name) {
  std::string_view text;
  int64_t number = 0;
  if (from[name].get(text) == simdjson::SUCCESS) {
    return std::string(text);
  }
  return from[name].get(number) == simdjson::SUCCESS ? std::to_string(number) : std::string();
}

int status_of(const ToldError& error) {
  for (const int status :
       {status_of_number(error.code), status_of_word(error.code), status_of_word(error.type)}) {
    if (status != 0) {
      return status;
    }
  }
  return 0;
}

ToldError of_object(object from) {
  ToldError error{.type = scalar(from, "type"),
                  .code = scalar(from, "code"),
                  .message = scalar(from, "message"),
                  .json = simdjson::minify(from)};
  error.status = status_of(error);
  return error;
}

}  // namespace

bool ToldError::out_of_quota() const {
  return code == "insufficient_quota" || type == "insufficient_quota" || type == "billing_error" ||
         code == "billing_hard_limit_reached";
}

ToldError error_of(element value) {
  object inner;
  std::string_view text;
  if (value.get(inner) == simdjson::SUCCESS) {
    return of_object(inner);
  }
  ToldError error{.json = simdjson::minify(value)};
  error.message = value.get(text) == simdjson::SUCCESS ? std::string(text) : error.json;
  return error;
}

std::optional<ToldError> read_error(object from) {
  std::string_view kind;
  if (from["object"].get(kind) == simdjson::SUCCESS && kind == "error") {
    return of_object(from);  // vLLM's, before it had an envelope
  }
  object inner;
  element value;
  if (from["response"].get(inner) == simdjson::SUCCESS &&
      inner["error"].get(value) == simdjson::SUCCESS && value.is_object()) {
    return error_of(value);  // OpenAI's response.failed
  }
  std::string_view text;
  const bool there = from["error"].get(value) == simdjson::SUCCESS &&
                     (value.is_object() || (value.get(text) == simdjson::SUCCESS && !text.empty()));
  if (!there) {
    return std::nullopt;
  }
  ToldError error = error_of(value);
  if (error.type.empty()) {
    error.type = scalar(from, "error_type");  // TGI's
    error.status = error.status != 0 ? error.status : status_of(error);
  }
  return error;
}

}  // namespace penstock::http_engine
