#include "worker/engines/http/health.h"

#include <simdjson.h>

#include "shared/base/utf8.h"

namespace penstock::http_engine {

std::string_view Health::path(Question question) const {
  switch (question) {
    case Question::kMetrics:
      return "/metrics";
    case Question::kModels:
      return "/v1/models";
    case Question::kSlots:
      return has_slots_ ? "/slots" : "/metrics";
    default:
      return path_;
  }
}

bool Health::ask(int64_t now_ns, Question& question) {
  if (path_.empty() || asking_ || now_ns < next_event()) {
    return false;
  }
  asking_ = true;
  question = now_ns >= slots_due_ns_ ? Question::kSlots : next_;
  return true;
}

void Health::look_at_slots(int64_t at_ns, bool has_slots) {
  slots_due_ns_ = well_ ? at_ns : INT64_MAX;
  has_slots_ = has_slots && !no_slots_;
}

// One round after the other; what a server has not, is not asked for again while it is well.
void Health::replied(Question question, const Reply& reply, int64_t now_ns) {
  const bool good = reply.status >= 200 && reply.status < 300;
  asking_ = false;
  if (question == Question::kSlots) {
    slots_due_ns_ = INT64_MAX;
    return take_slots(reply);
  }
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

// llama.cpp's server has one object a slot. Its older ones say state: 0 is idle.
void Health::take_slots(const Reply& reply) {
  busy_.reset();
  if (reply.status < 200 || reply.status > 299) {
    no_slots_ = no_slots_ || (has_slots_ && reply.status >= 400);
    return;
  }
  if (!has_slots_) {
    const ServerLoad load = read_metrics(reply.body);
    if (load.running) {
      busy_ = *load.running + load.waiting.value_or(0);
    }
    return;
  }
  simdjson::dom::parser parser;
  simdjson::dom::array slots;
  if (parser.parse(reply.body.data(), reply.body.size()).get(slots) != simdjson::SUCCESS) {
    no_slots_ = true;
    return;
  }
  uint64_t busy = 0;
  for (const simdjson::dom::element slot : slots) {
    bool processing = false;
    int64_t state = 0;
    const bool told = slot["is_processing"].get(processing) == simdjson::SUCCESS ||
                      slot["state"].get(state) == simdjson::SUCCESS;
    busy += !told || processing || state != 0 ? 1 : 0;
  }
  busy_ = busy;
}

// vLLM and SGLang say max_model_len, llama.cpp meta.n_ctx_train, others context_length.
void Health::take_models(std::string_view body) {
  simdjson::dom::parser parser;
  simdjson::dom::array models;
  if (parser.parse(body.data(), body.size())["data"].get(models) != simdjson::SUCCESS) {
    return;
  }
  std::string others;
  bool found = models.size() < 2;
  for (const simdjson::dom::element model : models) {
    std::string_view id;
    const bool ours = model["id"].get(id) == simdjson::SUCCESS && id == model_;
    found = found || ours;
    if (!ours && models.size() > 1) {
      constexpr size_t kShownBytes = 500;
      others += others.size() < kShownBytes ? (others.empty() ? "" : ", ") + one_line(id) : "";
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
  others_ = found ? "" : others;
}

}  // namespace penstock::http_engine
