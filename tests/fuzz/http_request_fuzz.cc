// A caller's body and an operator's override, as engine http sends them on: what was an object
// stays one, and has the fields that it was to have.
#include <simdjson.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "worker/engines/http/request_edit.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock::http_engine;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t cut = text.find('\n');
  const std::string_view override = cut == text.npos ? "" : text.substr(cut + 1);
  Options options;
  options.url = *parse_url("http://h");
  options.upstream_model = "up";
  auto edited = edit_request({.method = "POST",
                              .path = "/v1/chat/completions",
                              .model = "m",
                              .body = text.substr(0, cut),
                              .override = override},
                             options);
  auto* const call = std::get_if<std::unique_ptr<Call>>(&edited);
  if (call == nullptr) {
    return 0;
  }
  simdjson::dom::parser before;
  simdjson::dom::parser after;
  simdjson::dom::object object;
  std::string_view model;
  const bool good = before.parse(std::string(text.substr(0, cut))).get(object) == 0 &&
                    (override.empty() || before.parse(std::string(override)).get(object) == 0);
  if (good && (after.parse((*call)->body).get(object) != 0 ||
               (override.empty() && object["model"].get(model) != 0))) {
    std::abort();
  }
  return 0;
}
