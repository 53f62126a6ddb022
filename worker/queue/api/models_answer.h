// GET /v1/models and GET /v1/models/ID, which penstockd answers itself: it knows who serves what.
// Source: OpenAI API reference, "Models".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/queue/jobs/job_view.h"

namespace penstock::queue {

// What a path asks for: nothing of ours, the list (empty id), or one model.
std::optional<std::string_view> models_path(std::string_view path);

struct Model {
  std::string_view id;
  uint64_t context_tokens = 0;  // 0: nobody told; else it is the answer's context_length
  std::string_view kind;        // of what it makes: "text", "image"; empty: nobody told
  // How long a request that came now would wait; nothing: nobody knows.
  std::optional<int64_t> eta_seconds;
  std::optional<JobView::Range> eta_range;
  std::string_view eta_reason;  // why not
};

// Appends HEAD, CHUNK and DONE for the list.
void append_models(std::string& out, uint64_t id, const std::vector<Model>& models,
                   int64_t created_unix_s);
// The same for one model.
void append_model(std::string& out, uint64_t id, const Model& model, int64_t created_unix_s);

}  // namespace penstock::queue
