// What a program may write: lines cut anywhere, and the messages in them.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "shared/base/base64.h"
#include "shared/base/utf8.h"
#include "worker/engines/process/line_reader.h"
#include "worker/engines/process/messages.h"

namespace {

using namespace penstock::process;

constexpr size_t kMostBytes = 4096;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// The same lines, whatever the pieces.
std::vector<std::string> lines_of(std::string_view bytes, size_t piece) {
  std::vector<std::string> lines;
  LineReader reader(kMostBytes);
  const auto on_line = [&](const LineReader::Line& line) {
    require(line.text.find('\n') == line.text.npos);
    require(line.text.size() <= (line.whole ? kMostBytes : LineReader::kBeginningBytes));
    lines.push_back((line.whole ? "w" : "b") + std::string(line.text));
  };
  for (size_t at = 0; at < bytes.size(); at += piece) {
    reader.feed(bytes.substr(at, piece), on_line);
  }
  reader.finish(on_line);
  return lines;
}

void check(const Content& content) {
  require(content.type.find_first_of("\r\n") == std::string::npos);
  require(!content.file || content.bytes.empty());
}

void check(const Message& message) {
  if (const auto* answer = std::get_if<Answer>(&message.what)) {
    check(answer->content);
    require(answer->usage.prompt_tokens < uint64_t{1} << 40);
  } else if (const auto* preview = std::get_if<Preview>(&message.what)) {
    check(preview->picture);
  } else if (const auto* chunk = std::get_if<Chunk>(&message.what)) {
    require(penstock::utf8_first_invalid(chunk->text) == std::string::npos);
    require(chunk->type.find_first_of("\r\n") == std::string::npos);
  } else if (const auto* refusal = std::get_if<Refusal>(&message.what)) {
    require(refusal->failure.status >= 400 && refusal->failure.message.size() <= 1024);
  } else if (const auto* broken = std::get_if<Broken>(&message.what)) {
    require(!broken->why.empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto whole = lines_of(bytes, bytes.size() + 1);
  require(whole == lines_of(bytes, 1));
  require(whole == lines_of(bytes, 7));
  MessageReader reader;
  for (const std::string& line : whole) {
    if (line.starts_with("w{")) {
      check(reader.read(std::string_view(line).substr(1)));
    }
  }
  penstock::decode_base64(bytes);
  return 0;
}
