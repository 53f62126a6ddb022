// WebSocket (RFC 6455), as far as a server needs it that only tells: what a client sends is taken
// apart and dropped, but for a ping, which wants its pong, and a close.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock::http {

// Whether it may be a Sec-WebSocket-Key: 16 bytes in base64.
bool is_websocket_key(std::string_view key) noexcept;

// Takes frames apart as they arrive, wherever the reads cut them. Nothing of a frame is kept but
// its head, and the payload of a control frame.
class WebSocketReader {
 public:
  enum class Event : uint8_t {
    kMore,   // all bytes are used up
    kPing,   // payload() is to be sent back
    kClose,  // the client is done; payload() is the code that it gave, 0 or 2 bytes
    kBad,    // a broken rule: close with kProtocolError
  };
  static constexpr size_t kMaxControl = 125;
  static constexpr uint16_t kProtocolError = 1002;

  // Takes the next thing off the front of `bytes`.
  Event next(std::string_view& bytes) noexcept;
  std::string_view payload() const noexcept { return {payload_, size_}; }

 private:
  bool read_head(std::string_view& bytes) noexcept;
  bool is_control() const noexcept { return (head_[0] & 0x08) != 0; }

  uint8_t head_[14];
  size_t head_size_ = 0;  // of head_ filled
  bool whole_head_ = false;
  bool bad_ = false;
  uint64_t left_ = 0;  // payload bytes still to come
  char payload_[kMaxControl];
  size_t size_ = 0;
};

// Writes an unmasked control frame of at most kMaxControl bytes of payload; returns its size.
// REQUIRES: room for 2 bytes more than the payload.
enum class Opcode : uint8_t { kClose = 8, kPong = 10 };
size_t write_control_frame(Opcode opcode, std::string_view payload, char* out) noexcept;

}  // namespace penstock::http
