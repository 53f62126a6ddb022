#include "worker/queue/api/models_answer.h"

#include "worker/queue/text/json.h"
#include "worker/queue/text/reply.h"

namespace penstock::queue {
namespace {

void append_object(std::string& json, std::string_view model, int64_t created_unix_s) {
  json += R"({"id":)" + json_string(model) + R"(,"object":"model","created":)" +
          std::to_string(created_unix_s) + R"(,"owned_by":"penstock"})";
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
  append_reply(out, id, {.status = 200, .content_type = kJson}, json);
}

void append_model(std::string& out, uint64_t id, std::string_view model, int64_t created_unix_s) {
  std::string json;
  append_object(json, model, created_unix_s);
  append_reply(out, id, {.status = 200, .content_type = kJson}, json);
}

}  // namespace penstock::queue
