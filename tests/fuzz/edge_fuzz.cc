// What the edge is sent by others than HTTP clients' headers: receipts that come back, header lines
// of penstockd's, content types of engines', and a WebSocket client's frames, cut wherever the
// reads cut them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "shared/http/header_lines.h"
#include "shared/http/inert_type.h"
#include "shared/http/websocket.h"
#include "shared/wire/receipt.h"

namespace {

void check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void read_receipt(std::string_view text) {
  using namespace penstock::wire;
  std::string again(text.size() + 1 + 16 * kMaxReceiptEntries, '\0');  // of an older one: seals
  char* out = begin_receipt(again.data());
  const char version = again.front();
  ReceiptReader reader(text);
  ReceiptEntry entry;
  while (reader.next(entry)) {
    out = write_receipt_entry(out, entry);
  }
  const std::string_view written(again.data(), static_cast<size_t>(out - again.data()));
  if (reader.good() && !text.empty() && text.front() == version) {  // it is what was read
    check(written == text);
  }
  const std::string sealed = sealed_part(text);
  check(sealed.size() <= text.size() && sealed_part(sealed) == sealed);
}

void read_lines(std::string_view text) {
  using namespace penstock::http;
  HeaderLine line;
  while (!text.empty() && next_header_line(text, line) == nullptr) {
    check(!line.name.empty() && line.value.size() <= kMaxHeaderValue);
    check(line.value.find_first_of("\r\n") == std::string_view::npos);
  }
}

// What a browser reads last is behind the last comma; what is inert has none, and nothing of
// markup.
void read_type(std::string_view text) {
  if (penstock::http::is_inert_type(text)) {
    check(text.find(',') == std::string_view::npos);
    check(text.substr(0, text.find(';')).find("html") == std::string_view::npos);
  }
}

void read_frames(std::string_view text, size_t cut) {
  using namespace penstock::http;
  WebSocketReader reader;
  while (!text.empty()) {
    std::string_view piece = text.substr(0, cut);
    text.remove_prefix(piece.size());
    for (;;) {
      const WebSocketReader::Event event = reader.next(piece);
      check(reader.payload().size() <= WebSocketReader::kMaxControl);
      if (event == WebSocketReader::Event::kMore) {
        break;
      }
      if (event != WebSocketReader::Event::kPing) {
        return;
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  read_receipt(text);
  read_lines(text);
  read_type(text);
  read_frames(text, size);
  read_frames(text, 1);
  return 0;
}
