// FrameSocket: a worker process's own connection to penstockd's Unix socket, and the frames that go
// over it in buffers of a fixed size. Whose connection it is says when to open it, what a frame
// means, and what follows when it breaks.
#pragma once

#include <sys/un.h>

#include "ngx_module/nginx.h"
#include "shared/wire/messages.h"

extern "C" {
#include <ngx_event_connect.h>
}

namespace penstock {

struct FrameSocket {
  sockaddr_un address{};
  ngx_str_t name{};
  ngx_peer_connection_t peer{};  // its connection is nullptr while it is closed

  // A local socket is connected at once, or not at all: false, and nothing is logged. The
  // connection is idle: it does not keep a worker that is to exit.
  bool open(void* data, ngx_event_handler_pt on_read, ngx_event_handler_pt on_write) noexcept;
  void close() noexcept;
};

// Bytes that came, until they are whole frames.
template <size_t kBytes>
struct FramesIn {
  u_char bytes[kBytes];
  size_t size = 0;

  // What c->recv() says. REQUIRES: take() has followed the last one.
  ssize_t receive(ngx_connection_t* c) noexcept {
    const ssize_t n = c->recv(c, bytes + size, kBytes - size);
    size += n > 0 ? static_cast<size_t>(n) : 0;
    return n;
  }

  // Takes all frames that are whole. False: what came is none, or on_frame(frame) said so.
  template <class OnFrame>
  bool take(const OnFrame& on_frame) noexcept {
    size_t used = 0;
    for (;;) {
      const std::string_view rest(reinterpret_cast<char*>(bytes) + used, size - used);
      const wire::Decoded decoded =
          wire::decode(rest, {.submit_bytes = 0, .other_bytes = kBytes - wire::kHeaderBytes});
      if (decoded.kind == wire::Decoded::kIncomplete) {
        ngx_memmove(bytes, bytes + used, size - used);
        size -= used;
        return true;
      }
      if (decoded.kind == wire::Decoded::kBad || !on_frame(decoded.frame)) {
        return false;
      }
      used += decoded.consumed;
    }
  }
};

// Frames that wait for the socket.
template <size_t kBytes>
struct FramesOut {
  u_char bytes[kBytes];
  size_t size = 0;

  // False: it does not fit.
  template <class Message>
  bool put(uint64_t id, Message message) noexcept {
    if (size + wire::encoded_size(message) > kBytes) {
      return false;
    }
    char* const at = reinterpret_cast<char*>(bytes) + size;
    size += static_cast<size_t>(wire::encode(at, id, message) - at);
    return true;
  }

  // Sends what the socket takes; it is to be called again when that takes more. False: the
  // connection broke.
  bool flush(ngx_connection_t* c) noexcept {
    while (size > 0) {
      const ssize_t n = c->send(c, bytes, size);
      if (n == NGX_AGAIN) {
        return ngx_handle_write_event(c->write, 0) == NGX_OK;
      }
      if (n <= 0) {
        return false;
      }
      size -= static_cast<size_t>(n);
      ngx_memmove(bytes, bytes + n, size);
    }
    return true;
  }
};

}  // namespace penstock
