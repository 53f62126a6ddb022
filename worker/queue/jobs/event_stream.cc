#include "worker/queue/jobs/event_stream.h"

#include <charconv>

#include "shared/wire/frame.h"
#include "worker/queue/text/json.h"

namespace penstock::queue {
namespace {

constexpr char kTextMessage = '\x81';  // FIN and opcode 1
constexpr std::string_view kPing("\x89\x00", 2);
constexpr std::string_view kClose("\x88\x02\x03\xE8", 4);  // 1000: normal closure
constexpr std::string_view kEnd = "end";
constexpr size_t kSmallMessage = 125;
constexpr size_t kMediumMessage = 0xFFFF;

void append_big_endian(std::string& out, uint64_t number, int bytes) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(number >> shift & 0xFF));
  }
}

// RFC 6455, section 5.2: a server's frames are not masked.
std::string websocket_message(std::string_view text) {
  std::string message(1, kTextMessage);
  if (text.size() <= kSmallMessage) {
    message.push_back(static_cast<char>(text.size()));
  } else if (text.size() <= kMediumMessage) {
    message.push_back('\x7E');
    append_big_endian(message, text.size(), 2);
  } else {
    message.push_back('\x7F');
    append_big_endian(message, text.size(), 8);
  }
  return message.append(text);
}

bool read_number(std::string_view text, uint64_t& number) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

}  // namespace

std::string format(const EventId& id) {
  return id.ended ? std::string(kEnd) : std::to_string(id.run) + "-" + std::to_string(id.offset);
}

std::optional<EventId> parse_event_id(std::string_view text) noexcept {
  EventId id;
  const size_t dash = text.find('-');
  id.ended = text == kEnd;
  if (text.empty() || id.ended) {
    return id;
  }
  if (dash == std::string_view::npos || !read_number(text.substr(0, dash), id.run) ||
      !read_number(text.substr(dash + 1), id.offset)) {
    return std::nullopt;
  }
  return id;
}

void EventStream::begin() const {
  if (!websocket) {
    wire::append_chunk(out, frame_id, "retry: 2000\n\n");
  }
}

void EventStream::event(std::string_view name, const EventId& id, std::string_view json) const {
  say(name, format(id), json);
}

void EventStream::event(std::string_view name, std::string_view json) const { say(name, {}, json); }

void EventStream::say(std::string_view name, std::string_view id, std::string_view json) const {
  std::string text;
  if (websocket) {
    JsonObject message;
    message.text("event", name);
    if (!id.empty()) {
      message.text("id", id);
    }
    text = websocket_message(message.raw("data", json).done());
  } else {
    text.append("event: ").append(name);
    if (!id.empty()) {
      text.append("\nid: ").append(id);
    }
    text.append("\ndata: ").append(json).append("\n\n");
  }
  wire::append_chunk(out, frame_id, text);
}

void EventStream::keep_alive() const {
  wire::append_chunk(out, frame_id, websocket ? kPing : ": still here\n\n");
}

void EventStream::end() const {
  if (websocket) {
    wire::append_chunk(out, frame_id, kClose);
  }
}

std::string chunk_json(uint64_t offset, std::string_view text) {
  return JsonObject().number("offset", static_cast<int64_t>(offset)).text("text", text).done();
}

}  // namespace penstock::queue
