// GET /v1/models and GET /v1/models/ID, which penstockd answers itself: it knows who serves what.
// Source: OpenAI API reference, "Models".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::queue {

// What a path asks for: nothing of ours, the list (empty id), or one model.
std::optional<std::string_view> models_path(std::string_view path);

// Appends HEAD, CHUNK and DONE for the list.
void append_models(std::string& out, uint64_t id, const std::vector<std::string_view>& models,
                   int64_t created_unix_s);
// The same for one model.
void append_model(std::string& out, uint64_t id, std::string_view model, int64_t created_unix_s);

}  // namespace penstock::queue
