#include "worker/queue/api/models_answer.h"

#include "worker/queue/text/json.h"
#include "worker/queue/text/reply.h"

namespace penstock::queue {
namespace {

std::string describe(const Model& model, int64_t created_unix_s) {
  JsonObject object;
  object.text("id", model.id)
      .text("object", "model")
      .number("created", created_unix_s)
      .text("owned_by", "penstock");
  if (model.context_tokens > 0) {
    object.number("context_length", static_cast<int64_t>(model.context_tokens));
  }
  if (!model.kind.empty()) {
    object.text("kind", model.kind);
  }
  object.raw("eta_seconds", model.eta_seconds ? std::to_string(*model.eta_seconds) : "null")
      .raw("eta_range", render(model.eta_range));
  if (!model.eta_reason.empty()) {
    object.text("eta_reason", model.eta_reason);
  }
  return object.done();
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

void append_models(std::string& out, uint64_t id, const std::vector<Model>& models,
                   int64_t created_unix_s) {
  JsonList list;
  for (const Model& model : models) {
    list.add(describe(model, created_unix_s));
  }
  append_reply(out, id, {.status = 200, .content_type = kJson},
               JsonObject().text("object", "list").raw("data", list.done()).done());
}

void append_model(std::string& out, uint64_t id, const Model& model, int64_t created_unix_s) {
  append_reply(out, id, {.status = 200, .content_type = kJson}, describe(model, created_unix_s));
}

}  // namespace penstock::queue
