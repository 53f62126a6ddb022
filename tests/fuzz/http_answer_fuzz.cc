// What a server may send to engine http, cut at random: its head, its events, its JSON. Whatever it
// is, each byte of a stream comes out once and in order, and nothing is held that grows.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "worker/engines/http/event_splitter.h"
#include "worker/engines/http/headers.h"
#include "worker/engines/http/retry_after.h"
#include "worker/engines/http/server_load.h"
#include "worker/engines/http/told.h"
#include "worker/engines/http/top_fields.h"
#include "worker/pool/withhold.h"

namespace {

using namespace penstock::http_engine;

struct Reader final : EventSplitter::Listener {
  std::string bytes;
  TellTale tell_tale;
  bool on_event(const Event& event) override {
    bytes.append(event.bytes);
    if (event.whole && event.has_data) {
      tell_tale.event(event.data, event.type, event.is_error);
    }
    return true;
  }
};

void require(bool so) {
  if (!so) {
    std::abort();
  }
}

void read_stream(EventSplitter::Format format, std::string_view text, size_t piece) {
  Reader reader;
  EventSplitter splitter(format, reader);
  for (size_t at = 0; at < text.size(); at += piece) {
    splitter.feed(text.substr(at, piece));
    require(splitter.held() <= EventSplitter::kMaxHeldBytes + piece);
  }
  splitter.end();
  require(reader.bytes == text);
}

void read_json(std::string_view text, size_t piece) {
  TopFields whole;
  TopFields cut;
  whole.feed(text);
  for (size_t at = 0; at < text.size(); at += piece) {
    cut.feed(text.substr(at, piece));
  }
  require(whole.closed_at() == cut.closed_at() && whole.fields().size() == cut.fields().size());
  for (size_t i = 0; i < whole.fields().size(); ++i) {
    const TopField& field = whole.fields()[i];
    require(field.text == cut.fields()[i].text && field.end == cut.fields()[i].end);
    require(field.begin < field.value && field.value <= field.end && field.end <= text.size());
  }
  TellTale().answer(text);
}

void read_head(std::string_view text) {
  Head head;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end == text.npos ? end : end + 1);
    head.take(line);
    text.remove_prefix(line.size());
  }
  read_retry_after(head.retry_after(), head.retry_after_ms(), 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  // What is said of itself is withheld, but for what is too short to be a secret.
  if (const std::string said = penstock::withhold(all, {all});
      said.size() >= penstock::kWithheldBytes && said.find("[withheld]") == said.npos) {
    std::abort();
  }
  if (size == 0) {
    return 0;
  }
  const size_t piece = 1 + data[0];
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  read_stream(EventSplitter::Format::kEvents, text, piece);
  read_stream(EventSplitter::Format::kLines, text, piece);
  read_json(text, piece);
  read_head(text);
  read_metrics(text);
  return 0;
}
