#include "ngx_module/challenge/verify_line.h"

#include "ngx_module/request/frame_socket.h"
#include "shared/base/unix_socket.h"

namespace penstock {
namespace {

constexpr ngx_msec_t kPatienceMs = 25'000;  // penstockd's own is 20 s at most
constexpr ngx_msec_t kRestMs = 10'000;
constexpr size_t kInBytes = 4096;  // of frames that come: all are short
constexpr size_t kOutBytes = 64U << 10;

}  // namespace

struct VerifyLine {
  FrameSocket socket;
  ngx_queue_t under_way{};
  ngx_msec_t rests_since = 0;
  bool rests = false;   // until it is seen that kRestMs are over
  bool silent = false;  // and so is not asked meanwhile
  uint64_t last_id = 0;
  FramesIn<kInBytes> in;
  FramesOut<kOutBytes> out;
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
  ngx_connection_t* const c = line.socket.peer.connection;
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
  line.socket.close();
  line.in.size = line.out.size = 0;
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
  ngx_str_t name = line.socket.name;
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

void on_read(ngx_event_t* event) noexcept {
  auto* c = static_cast<ngx_connection_t*>(event->data);
  auto& line = *static_cast<VerifyLine*>(c->data);
  if (c->close != 0) {  // Nginx closes what is idle, to exit
    return break_line(line);
  }
  for (;;) {
    const ssize_t n = line.in.receive(c);
    if (n == NGX_AGAIN) {
      break;
    }
    if (n <= 0 || !line.in.take([&line](const wire::Frame& frame) noexcept {
          return on_frame(line, frame);
        })) {
      return break_line(line);
    }
  }
  if (ngx_handle_read_event(event, 0) != NGX_OK) {
    break_line(line);
  }
}

void on_write(ngx_event_t* event) noexcept {
  auto* c = static_cast<ngx_connection_t*>(event->data);
  auto& line = *static_cast<VerifyLine*>(c->data);
  if (!line.out.flush(c)) {
    break_line(line);
  }
}

bool open(VerifyLine& line) noexcept {
  if (line.socket.peer.connection != nullptr) {
    return true;
  }
  if (!line.socket.open(&line, on_read, on_write)) {
    tell(line, "it is not there");
    return false;
  }
  return line.out.put(0, wire::Hello{.version = wire::kVersionOfVerify,
                                     .role = static_cast<uint64_t>(wire::Role::kCaller)});
}

// False: nothing went out.
bool ask(VerifyLine& line, const wire::Verify& question, TokenCheck& check) noexcept {
  if (!open(line)) {
    return false;
  }
  if (!line.out.put(line.last_id + 1, question)) {
    check.verdict = wire::Verdict::kBusy;
    return false;
  }
  if (!line.out.flush(line.socket.peer.connection)) {
    break_line(line);
    return false;
  }
  check.id = ++line.last_id;
  check.line = &line;
  ngx_queue_insert_tail(&line.under_way, &check.link);
  line.socket.peer.connection->idle = line.socket.peer.connection->close = 0;
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
    if (view(line->socket.name) == socket) {
      return line;
    }
  }
  void* memory = ngx_pcalloc(cf->pool, sizeof(VerifyLine));
  const auto address = unix_address(socket);
  if (memory == nullptr || !address) {
    return nullptr;
  }
  auto* line = new (memory) VerifyLine;
  line->socket.address = *address;
  line->socket.name = copy(cf->pool, socket);
  ngx_queue_init(&line->under_way);
  return line->socket.name.data == nullptr || main.verify_lines.push(cf->pool, line) == nullptr
             ? nullptr
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
