#include "worker/engines/llama/chat_files.h"

#include "worker/engines/llama/json_file.h"

namespace penstock::llama {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxConfigBytes = 64 << 20;  // with a large "added_tokens_decoder"
constexpr size_t kMaxTemplateBytes = 1 << 20;

// A token is a text, or an object with a content.
std::optional<std::string> content_of(dom::element value) {
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS || value["content"].get(text) == simdjson::SUCCESS) {
    return std::string(text);
  }
  return std::nullopt;
}

Status choose_template(dom::element value, const std::string& path, ChatFiles& files) {
  std::string_view text;
  dom::array list;
  if (value.get(text) != simdjson::SUCCESS && value.get(list) == simdjson::SUCCESS) {
    for (const dom::element each : list) {
      std::string_view name;
      const bool fits =
          each["name"].get(name) == simdjson::SUCCESS && (name == "default" || list.size() == 1);
      if (fits && each["template"].get(text) != simdjson::SUCCESS) {
        text = {};
      }
    }
  }
  if (text.empty() || text.size() > kMaxTemplateBytes) {
    return Error{path + ": chat_template must be a text of at most " +
                 std::to_string(kMaxTemplateBytes) +
                 " bytes, or a list of named ones with one named \"default\""};
  }
  files.source = text;
  files.file = path;
  return Ok{};
}

// What of `path` is not known yet.
Status read_json(const std::string& path, ChatFiles& files) {
  const auto text = read_file_if_there(path, kMaxConfigBytes);
  if (!text) {
    return text.error();
  }
  if (!*text) {
    return Ok{};
  }
  dom::parser parser;
  const auto root = parse_json(parser, **text, path);
  if (!root) {
    return root.error();
  }
  dom::object object;
  if (root->get(object) != simdjson::SUCCESS) {
    return Error{path + ": is not a JSON object"};
  }
  for (const auto& [key, value] : object) {
    const auto token = key.ends_with("_token") ? content_of(value) : std::nullopt;
    if (token) {
      files.tokens.emplace_back(key, *token);
    }
  }
  dom::element value;
  if (files.source.empty() && object["chat_template"].get(value) == simdjson::SUCCESS &&
      !value.is_null()) {
    return choose_template(value, path, files);
  }
  return Ok{};
}

}  // namespace

std::string ChatFiles::token(const std::string& name) const {
  for (const auto& [known, content] : tokens) {
    if (known == name) {
      return content;
    }
  }
  return "";
}

Result<ChatFiles> load_chat_files(const std::string& folder) {
  ChatFiles files;
  const std::string path = folder + "/chat_template.jinja";
  auto own = read_file_if_there(path, kMaxTemplateBytes);
  if (!own) {
    return own.error();
  }
  if (*own) {
    files.source = std::move(**own);
    files.file = path;
  }
  for (const char* name : {"/tokenizer_config.json", "/chat_template.json"}) {
    const Status read = read_json(folder + name, files);
    if (!read) {
      return read.error();
    }
  }
  return files;
}

}  // namespace penstock::llama
