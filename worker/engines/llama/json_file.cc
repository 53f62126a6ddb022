#include "worker/engines/llama/json_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "shared/base/fd.h"

namespace penstock::llama {

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info = {};
  if (!fd.valid() || fstat(fd.get(), &info) != 0) {
    return Error{path + ": cannot be opened: " + strerror(errno)};
  }
  if (!S_ISREG(info.st_mode)) {
    return Error{path + ": is not a regular file"};
  }
  if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    return Error{path + ": is " + std::to_string(info.st_size) + " bytes, more than the " +
                 std::to_string(max_bytes) + " such a file may have"};
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  size_t got = 0;
  while (got < text.size()) {
    const ssize_t n = read(fd.get(), text.data() + got, text.size() - got);
    if (n <= 0) {
      return Error{path + ": cannot be read: " + (n < 0 ? strerror(errno) : "it became shorter")};
    }
    got += static_cast<size_t>(n);
  }
  return text;
}

Result<std::optional<std::string>> read_file_if_there(const std::string& path, size_t max_bytes) {
  if (access(path.c_str(), F_OK) != 0 && errno == ENOENT) {
    return std::optional<std::string>();
  }
  auto text = read_file(path, max_bytes);
  return text ? Result<std::optional<std::string>>(std::move(*text)) : text.error();
}

Result<simdjson::dom::element> parse_json(simdjson::dom::parser& parser, std::string_view text,
                                          const std::string& name) {
  simdjson::dom::element root;
  const auto error = parser.parse(text.data(), text.size()).get(root);
  if (error != simdjson::SUCCESS) {
    return Error{name + ": is not valid JSON: " + simdjson::error_message(error)};
  }
  return root;
}

Result<simdjson::dom::element> parse_json_object(simdjson::dom::parser& parser,
                                                 std::string_view text, const std::string& name) {
  auto root = parse_json(parser, text, name);
  if (root && !root->is_object()) {
    return Error{name + ": is not a JSON object"};
  }
  return root;
}

std::string quote(std::string_view text) {
  constexpr size_t kMost = 100;
  std::string out = "\"";
  for (const char c : text.substr(0, kMost)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7F || c == '"' ? '?' : c;
  }
  if (text.size() > kMost) {
    // The cut may fall inside a character; drop its bytes.
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0x80U) != 0) {
      out.pop_back();
    }
    out += "...";
  }
  return out + "\"";
}

}  // namespace penstock::llama
