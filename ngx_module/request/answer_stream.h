// AnswerStream: the frames of an answer, taken apart as they arrive, wherever the reads cut them.
//
// Bytes of CHUNK frames are passed on where they lie. Every other frame is small; its payload is
// told whole, from the buffer if it is all there, else from a copy in the pool, which is the next
// one's place; but NOTE's stays, as its text goes out from where it lies.
#pragma once

#include "ngx_module/nginx.h"
#include "shared/wire/frame.h"

namespace penstock {

class AnswerStream {
 public:
  enum class Event : uint8_t {
    kMore,   // all bytes are used up
    kBytes,  // bytes() is some of the answer
    kFrame,  // type() and payload() are a whole frame other than CHUNK
    kBad,    // error() says which rule was broken
  };
  static constexpr uint32_t kMaxControlBytes = 16U << 10;

  // Takes the next thing off [at, end) and moves `at` behind it.
  Event next(ngx_pool_t* pool, u_char*& at, u_char* end) noexcept;

  std::string_view bytes() const noexcept { return payload_; }
  // Whether a CHUNK has begun that is not all there yet.
  bool in_chunk() const noexcept {
    return header_size_ == wire::kHeaderBytes && header_.type == wire::FrameType::kChunk &&
           left_ > 0;
  }
  // Whether bytes() are the first of their CHUNK.
  bool begins() const noexcept { return begins_; }
  std::string_view payload() const noexcept { return payload_; }
  wire::FrameType type() const noexcept { return header_.type; }
  const char* error() const noexcept { return error_; }

 private:
  bool read_header(u_char*& at, const u_char* end) noexcept;
  Event read_control(ngx_pool_t* pool, u_char*& at, const u_char* end) noexcept;
  u_char* room(ngx_pool_t* pool) noexcept;

  char header_bytes_[wire::kHeaderBytes];
  size_t header_size_ = 0;  // of header_bytes_ filled
  wire::FrameHeader header_;
  uint32_t left_ = 0;  // payload bytes still to come
  bool begins_ = false;
  u_char* held_ = nullptr;  // the payload so far, when it came in parts
  u_char* room_ = nullptr;  // for it: one after the other
  size_t room_bytes_ = 0;
  std::string_view payload_;
  const char* error_ = nullptr;
};

}  // namespace penstock
