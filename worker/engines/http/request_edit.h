// A caller's request as its server is to get it.
//
// Only three things are changed: the model's name (in a JSON body, a multipart form, or a KServe
// path), what the operator overrides, and stream_options where we want to be told the usage and the
// caller did not ask for it. Every other byte of the body stays as it was sent.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "worker/engines/http/options.h"
#include "worker/pool/engine.h"

namespace penstock::http_engine {

// One request, ready to be sent, and what of it matters while its answer is read.
struct Call : Plan {
  std::string method;
  std::string url;
  std::string shown;  // the url, for a log
  std::string content_type;
  std::vector<std::string> headers;     // others of the caller's, "Name: value"
  std::vector<std::string_view> body;   // in pieces, of these:
  std::string text;                     // what takes the place of the caller's, or the whole
  std::shared_ptr<const void> storage;  // the caller's, if that is large

  bool reads_json = false;    // the server answers it in JSON, or events of it, whatever it says
  bool makes_text = false;    // tokens are used, also where nobody tells them
  bool anthropic = false;     // POST .../messages
  bool hides_usage = false;   // the caller did not ask for the usage that we did
  uint64_t choices = 1;       // "n": so many finish reasons are to come
  bool may_resend = false;    // it only generates: nothing happens twice if it is sent twice
  uint64_t prompt_bytes = 0;  // of what is text to the model, about
};

// Judges what can be judged without the server: that the body is a JSON object where it must be,
// and the override.
std::variant<std::unique_ptr<Call>, Failure> edit_request(const Request& request,
                                                          const Options& options);

// Replaces fields of `json`, an object, by these (name without quotes, value as JSON). A field that
// it does not have goes to its end. Empty: it is no whole JSON object.
std::string with_fields(std::string_view json,
                        const std::vector<std::pair<std::string, std::string>>& fields);

}  // namespace penstock::http_engine
