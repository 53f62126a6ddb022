#include "ngx_module/request/answer_stream.h"

#include <algorithm>
#include <bit>

namespace penstock {

bool AnswerStream::read_header(u_char*& at, const u_char* end) noexcept {
  const size_t take = std::min(wire::kHeaderBytes - header_size_, static_cast<size_t>(end - at));
  ngx_memcpy(header_bytes_ + header_size_, at, take);
  header_size_ += take;
  at += take;
  if (header_size_ < wire::kHeaderBytes) {
    return false;
  }
  error_ = wire::decode_header(header_bytes_, wire::Limits{.submit_bytes = 0}, header_);
  if (error_ == nullptr && header_.type != wire::FrameType::kChunk &&
      header_.length > kMaxControlBytes) {
    error_ = "payload over its limit";
  }
  left_ = header_.length;
  held_ = nullptr;
  return true;
}

AnswerStream::Event AnswerStream::next(ngx_pool_t* pool, u_char*& at, u_char* end) noexcept {
  do {
    if (header_size_ < wire::kHeaderBytes && !read_header(at, end)) {
      return Event::kMore;
    }
    if (error_ != nullptr) {
      return Event::kBad;
    }
    if (header_.type != wire::FrameType::kChunk) {
      return read_control(pool, at, end);
    }
    const size_t take = std::min(size_t{left_}, static_cast<size_t>(end - at));
    payload_ = {reinterpret_cast<char*>(at), take};
    begins_ = left_ == header_.length;
    at += take;
    left_ -= static_cast<uint32_t>(take);
    header_size_ = left_ == 0 ? 0 : header_size_;
    if (take > 0) {
      return Event::kBytes;
    }
  } while (at != end);  // an empty chunk
  return Event::kMore;
}

// nullptr when memory ran out.
u_char* AnswerStream::room(ngx_pool_t* pool) noexcept {
  if (header_.type == wire::FrameType::kNote) {
    return static_cast<u_char*>(ngx_pnalloc(pool, header_.length));
  }
  if (room_bytes_ < header_.length) {
    room_bytes_ = std::bit_ceil(header_.length);
    room_ = static_cast<u_char*>(ngx_pnalloc(pool, room_bytes_));
    room_bytes_ = room_ == nullptr ? 0 : room_bytes_;
  }
  return room_;
}

AnswerStream::Event AnswerStream::read_control(ngx_pool_t* pool, u_char*& at,
                                               const u_char* end) noexcept {
  const size_t take = std::min(size_t{left_}, static_cast<size_t>(end - at));
  if (held_ == nullptr && take == left_) {
    payload_ = {reinterpret_cast<char*>(at), take};
  } else {
    if (held_ == nullptr) {
      held_ = room(pool);
      if (held_ == nullptr) {
        error_ = "out of memory";
        return Event::kBad;
      }
    }
    ngx_memcpy(held_ + (header_.length - left_), at, take);
    payload_ = {reinterpret_cast<char*>(held_), header_.length};
  }
  at += take;
  left_ -= static_cast<uint32_t>(take);
  if (left_ > 0) {
    return Event::kMore;
  }
  header_size_ = 0;
  return Event::kFrame;
}

}  // namespace penstock
