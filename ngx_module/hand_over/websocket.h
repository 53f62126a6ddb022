// The client's side of a WebSocket that only tells (RFC 6455): the handshake, and what comes from
// the client afterwards. penstockd makes the messages; they go out as they come.
#pragma once

#include "ngx_module/request/request.h"
#include "shared/http/websocket.h"

namespace penstock {

struct WebSocket {
  http::WebSocketReader reader;
  // A pong that must wait until the message before it has gone out. A later one takes its place, as
  // the RFC allows.
  char pending[http::WebSocketReader::kMaxControl + 2];
  size_t pending_bytes = 0;
};

// Whether the request is a good opening handshake.
bool is_handshake(const ngx_http_request_t* r) noexcept;

// Whether a page of another site asks, which its visitor's browser lets do so in the visitor's name
// (RFC 6455, section 10.2): its Origin is neither the Host that was asked nor one of
// penstock_origins. Programs that are no browsers say no Origin.
bool is_foreign(const ngx_http_request_t* r) noexcept;

// For process_header: the answer is 101. False when memory ran out.
bool grant_upgrade(ngx_http_request_t* r, RequestState& state) noexcept;

// Its head has gone out: takes what the client sends.
void begin_websocket(ngx_http_request_t* r) noexcept;

// Sends a pong that waits, if nothing else is on its way.
void answer_websocket(ngx_http_request_t* r, RequestState& state) noexcept;

}  // namespace penstock
