#include "worker/queue/models_answer.h"

#include "shared/wire/messages.h"
#include "worker/queue/json.h"

namespace penstock::queue {
namespace {

void append_object(std::string& json, std::string_view model, int64_t created_unix_s) {
  json += R"({"id":)" + json_string(model) + R"(,"object":"model","created":)" +
          std::to_string(created_unix_s) + R"(,"owned_by":"penstock"})";
}

void append_answer(std::string& out, uint64_t id, std::string_view json) {
  wire::append(out, id, wire::Head{200, "application/json", json.size() + 1});
  wire::append_chunk(out, id, json);
  wire::append(out, id, wire::Done{});
}

}  // namespace

std::optional<std::string_view> models_path(std::string_view path) {
  constexpr std::string_view kList = "/models";
  if (path.ends_with(kList)) {
    return std::string_view();
  }
  const size_t at = path.find("/models/");
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  return path.substr(at + kList.size() + 1);
}

void append_models(std::string& out, uint64_t id, const std::vector<std::string_view>& models,
                   int64_t created_unix_s) {
  std::string json = R"({"object":"list","data":[)";
  for (const std::string_view model : models) {
    if (json.back() != '[') {
      json.push_back(',');
    }
    append_object(json, model, created_unix_s);
  }
  json += "]}";
  append_answer(out, id, json);
}

void append_model(std::string& out, uint64_t id, std::string_view model, int64_t created_unix_s) {
  std::string json;
  append_object(json, model, created_unix_s);
  append_answer(out, id, json);
}

}  // namespace penstock::queue
