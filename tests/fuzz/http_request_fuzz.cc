// A caller's body and an operator's override, as engine http sends them on: what was an object
// stays one, and has the fields that it was to have; what was a form names the model in the end.
#include <simdjson.h>

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "shared/http/form_fields.h"
#include "worker/engines/http/request_edit.h"

namespace {

void edit_form(std::string_view text, const penstock::http_engine::Options& options) {
  constexpr std::string_view kModel = "model";
  constexpr const char* kType = "multipart/form-data; boundary=b";
  const auto model_in = [&](std::string_view body) {
    penstock::http::FormFields fields(std::span(&kModel, 1), kType);
    fields.feed(body);
    return std::string(fields[0].text);
  };
  auto edited = penstock::http_engine::edit_request(
      {.method = "POST", .path = "/v1/audio/translations", .content_type = kType, .body = text},
      options);
  const auto& call = std::get<std::unique_ptr<penstock::http_engine::Call>>(edited);
  if (!model_in(text).empty() && model_in(call->text) != options.upstream_model) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock::http_engine;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t cut = text.find('\n');
  const std::string_view override = cut == text.npos ? "" : text.substr(cut + 1);
  Options options;
  options.url = *parse_url("http://h");
  options.upstream_model = "up";
  edit_form(text, options);
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
  if (good && (after.parse((*call)->text).get(object) != 0 ||
               (override.empty() && object["model"].get(model) != 0))) {
    std::abort();
  }
  return 0;
}
