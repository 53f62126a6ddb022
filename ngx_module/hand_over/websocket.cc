#include "ngx_module/hand_over/websocket.h"

extern "C" {
#include <ngx_sha1.h>
}

namespace penstock {
namespace {

constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
constexpr size_t kSha1Bytes = 20;

bool equals(std::string_view text, std::string_view lower) noexcept {
  return text.size() == lower.size() &&
         ngx_strncasecmp(str(text).data, str(lower).data, lower.size()) == 0;
}

// "keep-alive, Upgrade"
bool lists(std::string_view list, std::string_view lower) noexcept {
  while (!list.empty()) {
    const size_t end = ngx_min(list.find(','), list.size());
    std::string_view word = list.substr(0, end);
    while (!word.empty() && (word.front() == ' ' || word.front() == '\t')) {
      word.remove_prefix(1);
    }
    while (!word.empty() && (word.back() == ' ' || word.back() == '\t')) {
      word.remove_suffix(1);
    }
    if (equals(word, lower)) {
      return true;
    }
    list.remove_prefix(ngx_min(end + 1, list.size()));
  }
  return false;
}

// Between two messages, with nothing on its way.
bool is_quiet(ngx_http_request_t* r, const RequestState& state) noexcept {
  const ngx_http_upstream_t* u = r->upstream;
  return !state.answer.in_chunk() && u->out_bufs == nullptr && u->busy_bufs == nullptr &&
         r->out == nullptr && r->connection->buffered == 0;
}

bool send_now(ngx_http_request_t* r, const char* bytes, size_t size) noexcept {
  ngx_connection_t* c = r->connection;
  return c->send(c, reinterpret_cast<u_char*>(const_cast<char*>(bytes)), size) ==
         static_cast<ssize_t>(size);
}

// Ends the request as its upstream's end would: without an answer to come, and what the client
// still sends is awaited for a while, so that no reset overtakes what it was told. To finalize the
// request with an error isn't possible here: Nginx would clean up the upstream, which gives back
// the only reference, and then go on with a request that is gone.
void end_websocket(ngx_http_request_t* r) noexcept { (*r->upstream->cleanup)(r); }

// The client is done with it, or has broken a rule; it is told so if nothing is in between.
void close_websocket(ngx_http_request_t* r, const RequestState& state, std::string_view payload,
                     uint16_t code) noexcept {
  char frame[http::WebSocketReader::kMaxControl + 2];
  const char number[2] = {static_cast<char>(code >> 8), static_cast<char>(code & 0xFF)};
  const std::string_view said = code == 0 ? payload : std::string_view(number, sizeof number);
  const size_t size = http::write_control_frame(http::Opcode::kClose, said, frame);
  if (is_quiet(r, state)) {
    send_now(r, frame, size);
  }
  end_websocket(r);
}

// False: the request is over.
bool take_bytes(ngx_http_request_t* r, RequestState& state, std::string_view bytes) noexcept {
  WebSocket& socket = *state.websocket;
  for (;;) {
    switch (socket.reader.next(bytes)) {
      case http::WebSocketReader::Event::kMore:
        return true;
      case http::WebSocketReader::Event::kPing:
        socket.pending_bytes =
            http::write_control_frame(http::Opcode::kPong, socket.reader.payload(), socket.pending);
        answer_websocket(r, state);
        break;
      case http::WebSocketReader::Event::kClose:
        close_websocket(r, state, socket.reader.payload(), 0);
        return false;
      case http::WebSocketReader::Event::kBad:
        close_websocket(r, state, {}, http::WebSocketReader::kProtocolError);
        return false;
    }
  }
}

void read_client(ngx_http_request_t* r) noexcept {
  ngx_connection_t* c = r->connection;
  RequestState* state = find_state(r);
  // What came behind the handshake was read with it.
  ngx_buf_t& early = *r->header_in;
  const std::string_view first(reinterpret_cast<char*>(early.pos),
                               static_cast<size_t>(early.last - early.pos));
  early.pos = early.last;
  if (!take_bytes(r, *state, first)) {
    return;
  }
  u_char bytes[512];
  constexpr int kAtOnce = 16;  // then others have their turn
  for (int i = 0; c->read->ready != 0; ++i) {
    if (i == kAtOnce) {
      ngx_post_event(c->read, &ngx_posted_next_events);
      return;
    }
    const ssize_t n = c->recv(c, bytes, sizeof bytes);
    if (n == NGX_AGAIN) {
      break;
    }
    if (n <= 0) {
      end_websocket(r);
      return;
    }
    if (!take_bytes(r, *state, {reinterpret_cast<char*>(bytes), static_cast<size_t>(n)})) {
      return;
    }
  }
  if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
    end_websocket(r);
  }
}

}  // namespace

bool is_handshake(const ngx_http_request_t* r) noexcept {
  return r == r->main && r->method == NGX_HTTP_GET && r->http_version == NGX_HTTP_VERSION_11 &&
         equals(find_header(r, "upgrade"), "websocket") &&
         lists(find_header(r, "connection"), "upgrade") &&
         find_header(r, "sec-websocket-version") == "13" &&
         http::is_websocket_key(find_header(r, "sec-websocket-key"));
}

bool is_foreign(const ngx_http_request_t* r) noexcept {
  const std::string_view origin = find_header(r, "origin");
  const LocConf* loc = loc_conf(r);
  if (origin.empty() ||
      std::any_of(loc->origins.begin(), loc->origins.end(), [&](std::string_view known) {
        return known == kAnyOrigin || http::same_name(known, origin);
      })) {
    return false;
  }
  return !is_own_origin(r, origin);
}

bool grant_upgrade(ngx_http_request_t* r, RequestState& state) noexcept {
  const std::string_view key = find_header(r, "sec-websocket-key");
  ngx_sha1_t sha1;
  u_char digest[kSha1Bytes];
  ngx_sha1_init(&sha1);
  ngx_sha1_update(&sha1, key.data(), key.size());
  ngx_sha1_update(&sha1, kGuid.data(), kGuid.size());
  ngx_sha1_final(digest, &sha1);
  ngx_str_t raw{kSha1Bytes, digest};
  ngx_str_t accept{
      0, static_cast<u_char*>(ngx_pnalloc(r->pool, ngx_base64_encoded_length(kSha1Bytes)))};
  state.websocket = make<WebSocket>(r->pool);
  if (accept.data == nullptr || state.websocket == nullptr) {
    return false;
  }
  ngx_encode_base64(&accept, &raw);
  ngx_str_set(&r->upstream->headers_in.status_line, "101 Switching Protocols");
  r->keepalive = 0;
  r->upstream->buffering = 0;
  return state.push_answer_header(r, "Upgrade", str("websocket")) &&
         state.push_answer_header(r, "Sec-WebSocket-Accept", accept);
}

void begin_websocket(ngx_http_request_t* r) noexcept {
  r->read_event_handler = read_client;
  // Later: what the client has sent may end the request, which is being answered at this moment.
  ngx_post_event(r->connection->read, &ngx_posted_events);
}

void answer_websocket(ngx_http_request_t* r, RequestState& state) noexcept {
  WebSocket& socket = *state.websocket;
  if (socket.pending_bytes > 0 && is_quiet(r, state)) {
    if (!send_now(r, socket.pending, socket.pending_bytes)) {
      r->connection->error = 1;  // a part of it may be out: nothing can follow
    }
    socket.pending_bytes = 0;
  }
}

}  // namespace penstock
