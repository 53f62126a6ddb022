#include "worker/engines/process/messages.h"

#include <algorithm>
#include <array>

#include "shared/base/base64.h"
#include "worker/engines/process/failures.h"

namespace penstock::process {
namespace {

using simdjson::dom::element;
using simdjson::dom::object;

constexpr uint64_t kMostTokens = uint64_t{1} << 40;

// The last member of that name.
std::optional<element> member(const object& from, std::string_view name) {
  std::optional<element> found;
  for (const auto& field : from) {
    if (field.key == name) {
      found = field.value;
    }
  }
  return found;
}

std::optional<std::string_view> text(const object& from, std::string_view name) {
  std::string_view out;
  const auto found = member(from, name);
  return found && found->get(out) == simdjson::SUCCESS ? std::optional(out) : std::nullopt;
}

uint64_t count(const object& from, std::string_view name, uint64_t most) {
  uint64_t out = 0;
  const auto found = member(from, name);
  return found && found->get(out) == simdjson::SUCCESS && out < most ? out : 0;
}

bool flag(const object& from, std::string_view name) {
  bool out = false;
  const auto found = member(from, name);
  return found && found->get(out) == simdjson::SUCCESS && out;
}

Broken broken(const char* key, const std::string& wanted) {
  return {"the value of \"" + std::string(key) + "\" must be " + wanted};
}

// What goes into a header line of ours.
bool is_media_type(std::string_view type) {
  constexpr size_t kMostBytes = 200;
  return type.size() <= kMostBytes && type.find('/') != type.npos &&
         std::all_of(type.begin(), type.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

// nullptr, or what is wrong with it.
const char* read_content(const object& from, Content& out) {
  if (const auto type = member(from, "type")) {
    std::string_view name;
    if (type->get(name) != simdjson::SUCCESS || !is_media_type(name)) {
      return "have a media type as its \"type\", like \"image/png\"";
    }
    out.type = name;
  }
  const auto body = member(from, "body");
  const auto base64 = member(from, "base64");
  const auto file = member(from, "file");
  if (int{body.has_value()} + int{base64.has_value()} + int{file.has_value()} > 1) {
    return "have only one of \"file\", \"body\" and \"base64\"";
  }
  std::string_view value;
  if (file) {
    if (file->get(value) != simdjson::SUCCESS) {
      return "have the name of a file as its \"file\"";
    }
    out.file = value;
  } else if (base64) {
    auto bytes = base64->get(value) == simdjson::SUCCESS ? decode_base64(value) : std::nullopt;
    if (!bytes) {
      return "have base 64 in its \"base64\"";
    }
    out.bytes = std::move(*bytes);
  } else if (body && body->get(value) == simdjson::SUCCESS) {
    out.bytes = value;
  } else if (body) {  // any other JSON is sent as JSON
    out.bytes = simdjson::minify(*body);
    out.type = out.type.empty() ? "application/json" : out.type;
  }
  return nullptr;
}

using What = decltype(Message::what);

What read_hello(const object&, const element& value) {
  uint64_t version = 0;
  return value.get(version) == simdjson::SUCCESS ? What(Hello{version})
                                                 : broken("penstock", "a version, like 1");
}

What read_ready(const object&, const element& value) {
  bool ready = false;
  return value.get(ready) == simdjson::SUCCESS && ready ? What(Ready{}) : broken("ready", "true");
}

What read_progress(const object& line, const element& value) {
  double fraction = 0;
  if (value.get(fraction) != simdjson::SUCCESS) {
    return Dropped{"a \"progress\" that is no number"};
  }
  return Progress{fraction, static_cast<uint32_t>(count(line, "step", UINT32_MAX)),
                  static_cast<uint32_t>(count(line, "steps", UINT32_MAX))};
}

What read_preview(const object&, const element& value) {
  object from;
  Preview preview;
  if (value.get(from) != simdjson::SUCCESS) {
    return Dropped{"a \"preview\" that is no object"};
  }
  if (const char* wrong = read_content(from, preview.picture); wrong != nullptr) {
    return Dropped{std::string("a \"preview\" must ") + wrong};
  }
  return preview;
}

What read_chunk(const object& line, const element& value) {
  std::string_view bytes;
  if (value.get(bytes) != simdjson::SUCCESS) {
    return broken("chunk", "a text");
  }
  Chunk chunk{.text = std::string(bytes)};
  if (const auto type = member(line, "type")) {
    std::string_view name;
    if (type->get(name) != simdjson::SUCCESS || !is_media_type(name)) {
      return broken("type", "a media type, like \"text/event-stream\"");
    }
    chunk.type = name;
  }
  return chunk;
}

What read_answer(const object& line, const element& value) {
  object from;
  Answer answer;
  if (value.get(from) != simdjson::SUCCESS) {
    return broken("result", "an object, with \"type\" and \"file\" or \"body\"");
  }
  if (const char* wrong = read_content(from, answer.content); wrong != nullptr) {
    return Broken{std::string("the \"result\" must ") + wrong};
  }
  object used;
  if (const auto usage = member(line, "usage"); usage && usage->get(used) == simdjson::SUCCESS) {
    answer.usage.prompt_tokens = count(used, "prompt_tokens", kMostTokens);
    answer.usage.completion_tokens = count(used, "completion_tokens", kMostTokens);
  }
  return answer;
}

What read_refusal(const object&, const element& value) {
  object from;
  if (value.get(from) != simdjson::SUCCESS) {
    return broken("error", "an object, with \"code\", \"message\" and \"retryable\"");
  }
  return Refusal{refusal(text(from, "code").value_or(""), text(from, "message").value_or(""),
                         text(from, "param").value_or(""), flag(from, "retryable"))};
}

// In the order in which they count, where a line has several.
struct Reader {
  std::string_view key;
  What (*read)(const object& line, const element& value);
};
constexpr std::array<Reader, 7> kReaders = {{{"result", read_answer},
                                             {"error", read_refusal},
                                             {"chunk", read_chunk},
                                             {"preview", read_preview},
                                             {"progress", read_progress},
                                             {"ready", read_ready},
                                             {"penstock", read_hello}}};

// One past the brace that closes the object at the front of `line`; npos: none does.
size_t end_of_object(std::string_view line) {
  size_t depth = 0;
  bool in_text = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (in_text) {
      i += c == '\\' ? 1 : 0;
      in_text = c != '"';
    } else if (c == '"') {
      in_text = true;
    } else if (c == '{') {
      ++depth;
    } else if (c == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return line.npos;
}

// Python, for one, writes a progress that is not a number as NaN, which no JSON has.
What judge(std::string_view line, simdjson::error_code error) {
  const size_t end = end_of_object(line);
  const size_t more = end == line.npos ? end : line.find_first_not_of(" \t\r", end);
  if (more != line.npos) {
    return Broken{"there is more after the object, at column " + std::to_string(more + 1) +
                  "; each object has a line of its own"};
  }
  const std::string why = std::string("it is no JSON: ") + simdjson::error_message(error);
  const size_t key = line.find_first_not_of("{ \t");
  const std::string_view rest = line.substr(std::min(key, line.size()));
  if (rest.starts_with("\"progress\"") || rest.starts_with("\"preview\"")) {
    return Dropped{"a line: " + why};
  }
  return Broken{why};
}

}  // namespace

Message MessageReader::read(std::string_view line) {
  object from;
  if (const auto error = parser_.parse(line.data(), line.size()).get(from); error) {
    return {.job = {}, .what = judge(line, error)};
  }
  Message message;
  uint64_t number = 0;
  if (const auto job = member(from, "job"); job && job->get(number) == simdjson::SUCCESS) {
    message.job = number;
  }
  for (const Reader& reader : kReaders) {
    if (const auto value = member(from, reader.key)) {
      message.what = reader.read(from, *value);
      break;
    }
  }
  return message;
}

}  // namespace penstock::process
