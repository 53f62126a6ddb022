#include "ngx_module/challenge/verify_line.h"

#include <sys/socket.h>

#include "shared/base/unix_socket.h"

extern "C" {
#include <ngx_event_connect.h>
}

namespace penstock {
namespace {

constexpr ngx_msec_t kPatienceMs = 25'000;  // penstockd's own is 20 s at most
constexpr ngx_msec_t kRestMs = 10'000;
constexpr size_t kInBytes = 4096;  // of frames that come: all are short
constexpr size_t kOutBytes = 64U << 10;

}  // namespace

struct VerifyLine {
  sockaddr_un address{};
  ngx_str_t name{};
  ngx_peer_connection_t peer{};
  ngx_queue_t under_way{};
  ngx_msec_t rests_since = 0;
  bool rests = false;   // until it is seen that kRestMs are over
  bool silent = false;  // and so is not asked meanwhile
  uint64_t last_id = 0;
  u_char in[kInBytes];
  size_t in_size = 0;
  u_char out[kOutBytes];  // what waits for the socket
  size_t out_size = 0;
};

namespace {

TokenCheck& check_of(ngx_queue_t* link) noexcept { return *ngx_queue_data(link, TokenCheck, link); }

// It is asked for no more.
void leave(TokenCheck& check) noexcept {
  if (check.line == nullptr) {
    return;
  }
  ngx_queue_remove(&check.link);
  if (check.timer.timer_set != 0) {
    ngx_del_timer(&check.timer);
  }
  VerifyLine& line = *check.line;
  check.line = nullptr;
  ngx_connection_t* const c = line.peer.connection;
  if (c == nullptr || !ngx_queue_empty(&line.under_way)) {
    return;
  }
  c->idle = 1;  // such a one does not keep a worker that is to exit
  if (ngx_exiting != 0) {
    c->close = 1;  // Nginx has closed what was idle already
    ngx_post_event(c->read, &ngx_posted_events);
  }
}

void rest(VerifyLine& line, bool silent) noexcept {
  line.rests = true;
  line.silent = silent;
  line.rests_since = ngx_current_msec;
}

bool is_resting(VerifyLine& line) noexcept {
  line.rests = line.rests && ngx_current_msec - line.rests_since < kRestMs;
  return line.rests;
}

void end(TokenCheck& check, wire::Verdict verdict) noexcept {
  leave(check);
  check.over = true;
  check.verdict = verdict;
  ngx_post_event(check.r->connection->write, &ngx_posted_events);
}

void end_request(void* check) noexcept { leave(*static_cast<TokenCheck*>(check)); }

void break_line(VerifyLine& line, bool silent = false) noexcept {
  rest(line, silent);
  if (line.peer.connection != nullptr) {
    ngx_close_connection(line.peer.connection);
    line.peer.connection = nullptr;
  }
  line.in_size = line.out_size = 0;
  while (!ngx_queue_empty(&line.under_way)) {
    end(check_of(ngx_queue_head(&line.under_way)), wire::Verdict::kUnknown);
  }
}

// Once a minute: why a penstockd cannot be asked.
void tell(const VerifyLine& line, std::string_view why) noexcept {
  static time_t said_s = 0;
  if (ngx_time() - said_s < 60) {
    return;
  }
  said_s = ngx_time();
  ngx_str_t name = line.name;
  ngx_str_t text = str(why.substr(0, 200));
  ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                "penstockd at %V cannot be asked about challenges: %V", &name, &text);
}

void on_patience(ngx_event_t* event) noexcept {
  VerifyLine& line = *static_cast<TokenCheck*>(event->data)->line;
  tell(line, "it does not answer");
  break_line(line, true);
}

// False: the line is to be broken.
bool on_frame(VerifyLine& line, const wire::Frame& frame) noexcept {
  if (frame.header.type == wire::FrameType::kVerified) {
    wire::Verified message;
    if (wire::parse(frame.payload, message) != nullptr) {
      return false;
    }
    for (ngx_queue_t* at = ngx_queue_head(&line.under_way);
         at != ngx_queue_sentinel(&line.under_way); at = ngx_queue_next(at)) {
      if (check_of(at).id == frame.header.id) {
        const auto verdict = static_cast<wire::Verdict>(message.verdict);
        if (verdict == wire::Verdict::kUnknown) {
          rest(line, false);
        }
        end(check_of(at), verdict);
        break;
      }
    }
    return true;
  }
  wire::Goodbye goodbye;
  if (frame.header.type == wire::FrameType::kGoodbye &&
      wire::parse(frame.payload, goodbye) == nullptr) {
    tell(line, goodbye.message.empty() ? "it is going" : goodbye.message);
  }
  return false;
}

bool take_frames(VerifyLine& line) noexcept {
  size_t used = 0;
  for (;;) {
    const std::string_view bytes(reinterpret_cast<char*>(line.in) + used, line.in_size - used);
    const wire::Decoded decoded =
        wire::decode(bytes, {.submit_bytes = 0, .other_bytes = kInBytes - wire::kHeaderBytes});
    if (decoded.kind == wire::Decoded::kIncomplete) {
      ngx_memmove(line.in, line.in + used, line.in_size - used);
      line.in_size -= used;
      return true;
    }
    if (decoded.kind == wire::Decoded::kBad || !on_frame(line, decoded.frame)) {
      return false;
    }
    used += decoded.consumed;
  }
}

void on_read(ngx_event_t* event) noexcept {
  auto* c = static_cast<ngx_connection_t*>(event->data);
  auto& line = *static_cast<VerifyLine*>(c->data);
  if (c->close != 0) {  // Nginx closes what is idle, to exit
    return break_line(line);
  }
  for (;;) {
    const ssize_t n = c->recv(c, line.in + line.in_size, kInBytes - line.in_size);
    if (n == NGX_AGAIN) {
      break;
    }
    line.in_size += n > 0 ? static_cast<size_t>(n) : 0;
    if (n <= 0 || !take_frames(line)) {
      return break_line(line);
    }
  }
  if (ngx_handle_read_event(event, 0) != NGX_OK) {
    break_line(line);
  }
}

// False: the line is to be broken.
bool flush(VerifyLine& line) noexcept {
  ngx_connection_t* c = line.peer.connection;
  while (line.out_size > 0) {
    const ssize_t n = c->send(c, line.out, line.out_size);
    if (n == NGX_AGAIN) {
      return ngx_handle_write_event(c->write, 0) == NGX_OK;
    }
    if (n <= 0) {
      return false;
    }
    line.out_size -= static_cast<size_t>(n);
    ngx_memmove(line.out, line.out + n, line.out_size);
  }
  return true;
}

void on_write(ngx_event_t* event) noexcept {
  auto& line = *static_cast<VerifyLine*>(static_cast<ngx_connection_t*>(event->data)->data);
  if (!flush(line)) {
    break_line(line);
  }
}

template <class Message>
bool put(VerifyLine& line, uint64_t id, Message message) noexcept {
  if (line.out_size + wire::encoded_size(message) > kOutBytes) {
    return false;
  }
  char* const at = reinterpret_cast<char*>(line.out) + line.out_size;
  line.out_size += static_cast<size_t>(wire::encode(at, id, message) - at);
  return true;
}

ngx_int_t this_peer(ngx_peer_connection_t*, void*) noexcept { return NGX_OK; }

// A local socket is connected at once, or not at all.
bool open(VerifyLine& line) noexcept {
  if (line.peer.connection != nullptr) {
    return true;
  }
  line.peer.sockaddr = reinterpret_cast<sockaddr*>(&line.address);
  line.peer.socklen = sizeof line.address;
  line.peer.name = &line.name;
  line.peer.get = this_peer;
  line.peer.log_error = NGX_ERROR_IGNORE_ECONNRESET;
  ngx_log_t quiet = *ngx_cycle->log;
  quiet.log_level = NGX_LOG_EMERG;
  line.peer.log = &quiet;
  const ngx_int_t rc = ngx_event_connect_peer(&line.peer);
  line.peer.log = ngx_cycle->log;
  if (rc != NGX_OK && rc != NGX_AGAIN) {
    line.peer.connection = nullptr;
    tell(line, "it is not there");
    return false;
  }
  ngx_connection_t* c = line.peer.connection;
  c->log = c->read->log = c->write->log = ngx_cycle->log;
  c->data = &line;
  c->idle = 1;
  c->read->handler = on_read;
  c->write->handler = on_write;
  return put(line, 0,
             wire::Hello{.version = wire::kVersionOfVerify,
                         .role = static_cast<uint64_t>(wire::Role::kCaller)});
}

// False: nothing went out.
bool ask(VerifyLine& line, const wire::Verify& question, TokenCheck& check) noexcept {
  if (!open(line)) {
    return false;
  }
  if (!put(line, line.last_id + 1, question)) {
    check.verdict = wire::Verdict::kBusy;
    return false;
  }
  if (!flush(line)) {
    break_line(line);
    return false;
  }
  check.id = ++line.last_id;
  check.line = &line;
  ngx_queue_insert_tail(&line.under_way, &check.link);
  line.peer.connection->idle = line.peer.connection->close = 0;
  check.timer.handler = on_patience;
  check.timer.data = &check;
  check.timer.log = ngx_cycle->log;
  ngx_add_timer(&check.timer, kPatienceMs);
  return true;
}

}  // namespace

VerifyLine* verify_line_of(ngx_conf_t* cf, std::string_view socket) noexcept {
  MainConf& main = *main_conf(cf);
  for (VerifyLine* line : main.verify_lines) {
    if (view(line->name) == socket) {
      return line;
    }
  }
  void* memory = ngx_pcalloc(cf->pool, sizeof(VerifyLine));
  const auto address = unix_address(socket);
  if (memory == nullptr || !address) {
    return nullptr;
  }
  auto* line = new (memory) VerifyLine;
  line->address = *address;
  line->name = copy(cf->pool, socket);
  ngx_queue_init(&line->under_way);
  return line->name.data == nullptr || main.verify_lines.push(cf->pool, line) == nullptr ? nullptr
                                                                                         : line;
}

TokenCheck* ask_about_token(ngx_http_request_t* r, const PoolArray<VerifyLine*>& lines,
                            const wire::Verify& question) noexcept {
  ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->pool, sizeof(TokenCheck));
  if (cleanup == nullptr) {
    return nullptr;
  }
  auto* check = new (cleanup->data) TokenCheck;
  check->r = r;
  cleanup->handler = end_request;
  for (const bool resting : {false, true}) {
    for (VerifyLine* line : lines) {
      if (is_resting(*line) == resting && !(resting && line->silent) &&
          ask(*line, question, *check)) {
        return check;
      }
    }
  }
  check->over = true;
  return check;
}

}  // namespace penstock
