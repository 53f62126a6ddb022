#include "shared/http/websocket.h"

#include <algorithm>
#include <cstring>

namespace penstock::http {
namespace {

constexpr uint8_t kFinal = 0x80;
constexpr uint8_t kReserved = 0x70;
constexpr uint8_t kMasked = 0x80;
constexpr uint8_t kPing = 9;
constexpr size_t kMaskBytes = 4;

bool is_base64(char c) noexcept {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
         c == '/';
}

// How many bytes the head has, going by its first two.
size_t head_bytes(const uint8_t* head) noexcept {
  const uint8_t length = head[1] & 0x7F;
  return 2 + (length == 126 ? 2 : length == 127 ? 8 : 0) + kMaskBytes;
}

uint64_t payload_bytes(const uint8_t* head) noexcept {
  const uint8_t length = head[1] & 0x7F;
  if (length < 126) {
    return length;
  }
  uint64_t bytes = 0;
  for (size_t i = 2; i < head_bytes(head) - kMaskBytes; ++i) {
    bytes = bytes << 8 | head[i];
  }
  return bytes;
}

}  // namespace

bool is_websocket_key(std::string_view key) noexcept {
  return key.size() == 24 && key.substr(22) == "==" &&
         std::all_of(key.begin(), key.begin() + 22, is_base64);
}

// False while it is not whole. A client's frames are masked; a control frame is short and whole.
bool WebSocketReader::read_head(std::string_view& bytes) noexcept {
  while (head_size_ < 2 || head_size_ < head_bytes(head_)) {
    if (bytes.empty()) {
      return false;
    }
    head_[head_size_++] = static_cast<uint8_t>(bytes.front());
    bytes.remove_prefix(1);
    if (head_size_ == 2 && (head_[1] & kMasked) == 0) {  // there is no more to this head
      bad_ = whole_head_ = true;
      return true;
    }
  }
  const uint8_t opcode = head_[0] & 0x0F;
  left_ = payload_bytes(head_);
  size_ = 0;
  whole_head_ = true;
  bad_ = (head_[0] & kReserved) != 0 || (opcode > 2 && opcode < 8) || opcode > 10 ||
         (is_control() && (left_ > kMaxControl || (head_[0] & kFinal) == 0)) ||
         left_ > uint64_t{INT64_MAX};
  return true;
}

WebSocketReader::Event WebSocketReader::next(std::string_view& bytes) noexcept {
  for (;;) {
    if (!whole_head_ && !read_head(bytes)) {
      return Event::kMore;
    }
    if (bad_) {
      return Event::kBad;
    }
    const size_t take = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
    if (is_control()) {
      const uint8_t* const mask = head_ + head_size_ - kMaskBytes;
      for (size_t i = 0; i < take; ++i, ++size_) {
        payload_[size_] =
            static_cast<char>(static_cast<uint8_t>(bytes[i]) ^ mask[size_ % kMaskBytes]);
      }
    }
    bytes.remove_prefix(take);
    left_ -= take;
    if (left_ > 0) {
      return Event::kMore;
    }
    const uint8_t opcode = head_[0] & 0x0F;
    head_size_ = 0;
    whole_head_ = false;
    if (opcode == kPing) {
      return Event::kPing;
    }
    if (opcode == static_cast<uint8_t>(Opcode::kClose)) {
      size_ = size_ >= 2 ? 2 : 0;
      return Event::kClose;
    }
  }
}

size_t write_control_frame(Opcode opcode, std::string_view payload, char* out) noexcept {
  out[0] = static_cast<char>(kFinal | static_cast<uint8_t>(opcode));
  out[1] = static_cast<char>(payload.size());
  if (!payload.empty()) {
    std::memcpy(out + 2, payload.data(), payload.size());
  }
  return 2 + payload.size();
}

}  // namespace penstock::http
