#include "worker/engines/http/health.h"

#include <simdjson.h>

namespace penstock::http_engine {

std::string_view Health::path(Question question) const {
  switch (question) {
    case Question::kMetrics:
      return "/metrics";
    case Question::kModels:
      return "/v1/models";
    default:
      return path_;
  }
}

bool Health::ask(int64_t now_ns, Question& question) {
  if (path_.empty() || asking_ || now_ns < due_ns_) {
    return false;
  }
  asking_ = true;
  question = next_;
  return true;
}

// One round after the other; what a server has not, is not asked for again while it is well.
void Health::replied(Question question, const Reply& reply, int64_t now_ns) {
  const bool good = reply.status >= 200 && reply.status < 300;
  asking_ = false;
  due_ns_ = now_ns + kEveryNs;
  next_ = Question::kHealth;
  if (question == Question::kHealth && !good) {
    well_ = false;
    load_ = {};
    due_ns_ = now_ns + kDownEveryNs;
    why_ = "GET " + path_ + ": " + (reply.status == 0 ? reply.error : std::to_string(reply.status));
  } else if (question == Question::kHealth) {
    next_ = well_ || !speaks_openai_ ? Question::kMetrics : Question::kModels;
    due_ns_ = now_ns;
    well_ = true;
  } else if (question == Question::kModels) {
    take_models(good ? reply.body : "");
    next_ = Question::kMetrics;
    due_ns_ = now_ns;
  } else {
    load_ = good ? read_metrics(reply.body) : ServerLoad{};
  }
}

// vLLM and SGLang say max_model_len, llama.cpp meta.n_ctx_train, others context_length.
void Health::take_models(std::string_view body) {
  simdjson::dom::parser parser;
  simdjson::dom::array models;
  if (parser.parse(body.data(), body.size())["data"].get(models) != simdjson::SUCCESS) {
    return;
  }
  for (const simdjson::dom::element model : models) {
    std::string_view id;
    const bool ours = model["id"].get(id) == simdjson::SUCCESS && id == model_;
    if (!ours && models.size() > 1) {
      continue;
    }
    for (const char* const name : {"max_model_len", "context_length", "context_window"}) {
      uint64_t tokens = 0;
      if (model[name].get(tokens) == simdjson::SUCCESS) {
        context_tokens_ = tokens;
      }
    }
    uint64_t trained = 0;
    if (context_tokens_ == 0 && model["meta"]["n_ctx_train"].get(trained) == simdjson::SUCCESS) {
      context_tokens_ = trained;
    }
  }
}

}  // namespace penstock::http_engine
