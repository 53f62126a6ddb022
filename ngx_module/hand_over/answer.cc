#include "ngx_module/hand_over/answer.h"

#include <algorithm>

#include "ngx_module/conf/text.h"
#include "ngx_module/hand_over/answer_headers.h"
#include "ngx_module/hand_over/stored_file.h"
#include "ngx_module/hand_over/websocket.h"
#include "ngx_module/reply/reply.h"
#include "ngx_module/request/request.h"
#include "shared/base/clock.h"
#include "shared/wire/messages.h"

namespace penstock {
namespace {

constexpr uint64_t kFirstStatus = 200;
constexpr uint64_t kLastStatus = 599;

bool is_header_text(std::string_view text) noexcept {
  return std::none_of(text.begin(), text.end(),
                      [](unsigned char c) { return c < 0x20 || c > 0x7E; });
}

ngx_int_t invalid(ngx_http_request_t* r, const char* why) noexcept {
  ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "penstockd sent an invalid frame: %s", why);
  return NGX_HTTP_UPSTREAM_INVALID_HEADER;
}

const char* on_accepted(RequestState& state, std::string_view payload) noexcept {
  wire::Accepted accepted;
  if (const char* error = wire::parse(payload, accepted); error != nullptr) {
    return error;
  }
  if (accepted.job_id.size() > sizeof state.job_id_bytes || !is_header_text(accepted.job_id)) {
    return "job_id is not an id";
  }
  ngx_memcpy(state.job_id_bytes, accepted.job_id.data(), accepted.job_id.size());
  state.job_id_size = accepted.job_id.size();
  state.eta_ms = accepted.eta_ms;
  state.accepted_ns = monotonic_ns();
  state.started_at_once = accepted.position == 0;
  if (accepted.promised != 0) {
    hand_over(state.receipt);
  }
  return nullptr;
}

// A failure of ours gives back what was charged: the limits are told of as they will then stand.
bool tell_of_what_is_given_back(ngx_http_request_t* r, RequestState& state, int status) noexcept {
  if (status < NGX_HTTP_INTERNAL_SERVER_ERROR || state.duplicate) {
    return true;
  }
  limit::Decision decisions[kMaxCharges];
  Judged judged[kMaxCharges];
  const size_t count = as_given_back(state.receipt, decisions, judged);
  return count == 0 || push_rate_headers(r, state.tier, {judged, count}, false, state.rate_headers);
}

// Nobody needs the pipe before its answer comes: a caller that waits is to cost little.
bool open_pipe(ngx_http_request_t* r) noexcept {
  ngx_http_upstream_t* u = r->upstream;
  if (u->buffering == 0 || u->pipe != nullptr) {
    return true;
  }
  u->pipe = static_cast<ngx_event_pipe_t*>(ngx_pcalloc(r->pool, sizeof(ngx_event_pipe_t)));
  if (u->pipe == nullptr) {
    return false;
  }
  u->pipe->input_filter = read_answer_buffered;
  u->pipe->input_ctx = r;
  return true;
}

ngx_int_t push_head(ngx_http_request_t* r, RequestState& state, const wire::Head& head) noexcept {
  if (!push_answer_headers(r, state, 0)) {
    return NGX_ERROR;
  }
  if (const ngx_int_t rc = push_given_headers(r, state, head.headers); rc != NGX_OK) {
    return rc;
  }
  if (head.status == NGX_HTTP_NO_CONTENT || head.status == NGX_HTTP_SWITCHING_PROTOCOLS) {
    return NGX_OK;
  }
  const bool streams = head.content_length_plus1 == 0 && head.file.empty();
  return push_guards(r, state, head.content_type, streams) &&
                 (!streams || push_stream_headers(r, state))
             ? NGX_OK
             : NGX_ERROR;
}

ngx_int_t on_head(ngx_http_request_t* r, RequestState& state, std::string_view payload) noexcept {
  ngx_http_upstream_t* u = r->upstream;
  wire::Head head;
  if (const char* error = wire::parse(payload, head); error != nullptr) {
    return invalid(r, error);
  }
  const bool upgrades = head.status == NGX_HTTP_SWITCHING_PROTOCOLS && state.asks_upgrade;
  if (((head.status < kFirstStatus || head.status > kLastStatus) && !upgrades) ||
      !is_header_text(head.content_type)) {
    return invalid(r, "status or content_type is impossible");
  }
  const ngx_str_t type = copy(r->pool, head.content_type);
  if (type.data == nullptr) {
    return NGX_ERROR;
  }
  set_content_type(r, view(type));
  state.answer_is_events = view(type).substr(0, 17) == "text/event-stream";
  if (const ngx_int_t rc = push_head(r, state, head); rc != NGX_OK) {
    return rc;
  }
  if (upgrades && !grant_upgrade(r, state)) {
    return NGX_ERROR;
  }
  if (state.outcome == Outcome::kBusy) {
    state.outcome = state.admitted;  // whatever a server tried before has said
  }
  if (loc_conf(r)->asks && state.answer_is_events) {
    u->buffering = 0;  // whatever penstock_buffering says: each event is wanted when it happens
  }
  state.duplicate = head.duplicate != 0;
  u->headers_in.status_n = static_cast<ngx_uint_t>(head.status);
  u->state->status = u->headers_in.status_n;
  u->headers_in.content_length_n = static_cast<off_t>(head.content_length_plus1) - 1;
  if (u->headers_in.content_length_n < -1) {
    return invalid(r, "content_length is impossible");
  }
  state.answer_begun = true;
  state.begun_ns = monotonic_ns();
  state.answer_left = u->headers_in.content_length_n;
  if (head.promised != 0) {
    hand_over(state.receipt);
  }
  return head.file.empty() ? NGX_OK : turn_to_file(r, state, head.file, type);
}

http::Problem problem_of(const wire::Failed& failed) noexcept {
  return {.status = static_cast<int>(failed.status),
          .detail = failed.message,
          .code = failed.code,
          .param = failed.param,
          .retry_after_s = static_cast<int64_t>(failed.retry_after_s)};
}

const char* parse_failed(std::string_view payload, wire::Failed& failed) noexcept {
  if (const char* error = wire::parse(payload, failed); error != nullptr) {
    return error;
  }
  return failed.status < 400 || failed.status > kLastStatus || failed.retry_after_s > 31'536'000
             ? "status or retry_after_s is impossible"
             : nullptr;
}

// The whole answer is a problem: it takes the place of the frames in the upstream's buffer.
ngx_int_t answer_with_problem(ngx_http_request_t* r, RequestState& state,
                              const wire::Failed& failed, bool last_frame) noexcept {
  ngx_http_upstream_t* u = r->upstream;
  const ngx_str_t body = render_problem(r->pool, problem_of(failed));
  if (body.data == nullptr) {
    return NGX_ERROR;
  }
  u->headers_in.status_n = static_cast<ngx_uint_t>(failed.status);
  u->state->status = u->headers_in.status_n;
  u->headers_in.content_length_n = static_cast<off_t>(body.len);
  state.retry_after_s = static_cast<int64_t>(failed.retry_after_s);
  state.answer_begun = true;
  state.answer_is_problem = true;
  if (state.job_id_size == 0) {
    u->conf = &loc_conf(r)->upstream;  // it has refused: another may be asked, also for a promise
  }
  u->keepalive = last_frame ? 1 : 0;
  u->buffering = 0;
  u->buffer.start = u->buffer.pos = body.data;
  u->buffer.last = u->buffer.end = body.data + body.len;
  if (failed.status == NGX_HTTP_SERVICE_UNAVAILABLE) {
    state.outcome = Outcome::kBusy;
  }
  set_content_type(r, kProblemType);
  return tell_of_what_is_given_back(r, state, static_cast<int>(failed.status)) &&
                 push_answer_headers(r, state, state.retry_after_s)
             ? push_refusal_headers(r, state, failed.headers)
             : NGX_ERROR;
}

ngx_int_t on_failed(ngx_http_request_t* r, RequestState& state, std::string_view payload,
                    bool last_frame) noexcept {
  wire::Failed failed;
  if (const char* error = parse_failed(payload, failed); error != nullptr) {
    return invalid(r, error);
  }
  return answer_with_problem(r, state, failed, last_frame);
}

// False: it is no such frame.
bool log_goodbye(ngx_http_request_t* r, std::string_view payload) noexcept {
  wire::Goodbye goodbye;
  if (const char* error = wire::parse(payload, goodbye); error != nullptr) {
    invalid(r, error);
    return false;
  }
  const ngx_str_t message = one_line(r->pool, goodbye.message);
  ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "penstockd says goodbye: %V", &message);
  return true;
}

// penstockd will not serve this connection; another one, or another server, may do.
ngx_int_t on_goodbye(ngx_http_request_t* r, RequestState& state,
                     std::string_view payload) noexcept {
  if (!log_goodbye(r, payload)) {
    return NGX_HTTP_UPSTREAM_INVALID_HEADER;
  }
  return answer_with_problem(r, state,
                             {.status = NGX_HTTP_SERVICE_UNAVAILABLE,
                              .code = "busy",
                              .message = "The queue takes no more connections. Try again in 1 s.",
                              .retry_after_s = 1},
                             false);
}

// However long the queue: each sign of life renews the patience, which Nginx itself would only
// count from the request.
void renew_read_timeout(ngx_http_upstream_t* u) noexcept {
  ngx_add_timer(u->peer.connection->read, u->conf->read_timeout);
}

// Signs of life fit the first buffer; for the answer there is one of the size that was configured.
bool enlarge(ngx_http_request_t* r) noexcept {
  ngx_buf_t& b = r->upstream->buffer;
  const auto size = static_cast<size_t>(b.last - b.pos);
  auto* start = static_cast<u_char*>(ngx_palloc(r->pool, r->upstream->conf->buffer_size));
  if (start == nullptr) {
    return false;
  }
  ngx_memcpy(start, b.pos, size);
  b.start = b.pos = start;
  b.last = start + size;
  b.end = start + r->upstream->conf->buffer_size;
  return true;
}

// Incomplete frames go to the front, so that the buffer bounds one frame and not all that came
// before.
ngx_int_t wait_for_more(ngx_http_request_t* r, const RequestState& state, size_t needed) noexcept {
  ngx_buf_t& b = r->upstream->buffer;
  if (b.start == state.first_buffer && needed > sizeof state.first_buffer && !enlarge(r)) {
    return NGX_ERROR;
  }
  const auto size = static_cast<size_t>(b.last - b.pos);
  if (needed > static_cast<size_t>(b.end - b.start)) {
    return invalid(r, "a frame does not fit penstock_buffer_size");
  }
  ngx_memmove(b.start, b.pos, size);
  b.pos = b.start;
  b.last = b.start + size;
  return NGX_AGAIN;
}

void append_out(ngx_http_upstream_t* u, ngx_chain_t* link, u_char* from, u_char* to) noexcept {
  ngx_chain_t** tail = &u->out_bufs;
  while (*tail != nullptr) {
    tail = &(*tail)->next;
  }
  *tail = link;
  link->next = nullptr;
  link->buf->flush = 1;
  link->buf->memory = 1;
  link->buf->pos = from;
  link->buf->last = to;
  link->buf->tag = u->output.tag;
}

ngx_int_t emit(ngx_http_request_t* r, u_char* from, u_char* to) noexcept {
  ngx_http_upstream_t* u = r->upstream;
  ngx_chain_t* link = ngx_chain_get_free_buf(r->pool, &u->free_bufs);
  if (link == nullptr) {
    return NGX_ERROR;
  }
  append_out(u, link, from, to);
  return NGX_OK;
}

// `data: {problem}\n\n`, the way OpenAI tells of an error in an open stream.
ngx_str_t render_error_event(ngx_pool_t* pool, const wire::Failed& failed) noexcept {
  static constexpr std::string_view kBefore = "data: ";
  const ngx_str_t body = render_problem(pool, problem_of(failed));
  auto* out = static_cast<u_char*>(ngx_pnalloc(pool, kBefore.size() + body.len + 1));
  if (body.data == nullptr || out == nullptr) {
    return {0, nullptr};
  }
  ngx_memcpy(out, kBefore.data(), kBefore.size());
  ngx_memcpy(out + kBefore.size(), body.data, body.len);  // ends in a newline
  out[kBefore.size() + body.len] = '\n';
  return {kBefore.size() + body.len + 1, out};
}

// Takes some bytes off what was promised. False when they are more: the client's connection would
// be out of step.
bool keeps_promise(ngx_http_request_t* r, RequestState& state, size_t bytes) noexcept {
  if (state.answer_left < 0) {
    return true;
  }
  if (static_cast<off_t>(bytes) > state.answer_left) {
    invalid(r, "more bytes than its content_length");
    return false;
  }
  state.answer_left -= static_cast<off_t>(bytes);
  if (state.answer_left == 0) {
    release(state.receipt);  // the caller has it all, and may ask again before DONE comes
  }
  return true;
}

enum class Ending : uint8_t { kGoesOn, kComplete, kCutShort, kInvalid };

// What it says was used is taken up to a bound that no job reaches, so that sums stay sums.
Ending on_done(ngx_http_request_t* r, RequestState& state) noexcept {
  constexpr uint64_t kMost = uint64_t{1} << 40;
  wire::Done done;
  if (const char* error = wire::parse(state.answer.payload(), done); error != nullptr) {
    invalid(r, error);
    return Ending::kInvalid;
  }
  state.done = true;
  state.prompt_tokens = std::min(done.prompt_tokens, kMost);
  state.usage.tokens = state.prompt_tokens + std::min(done.completion_tokens, kMost);
  state.usage.gpu_ms =
      std::min(done.device_ns / kNsPerMs + (done.device_ns % kNsPerMs != 0 ? 1 : 0), kMost);
  return Ending::kComplete;
}

// A frame in the middle of the answer. `event` is set when something is to be said to the client.
Ending on_frame(ngx_http_request_t* r, RequestState& state, ngx_str_t& event) noexcept {
  switch (state.answer.type()) {
    case wire::FrameType::kProgress:
      return Ending::kGoesOn;
    case wire::FrameType::kDone:
      if (state.answer_left > 0) {
        invalid(r, "fewer bytes than its content_length");
        return Ending::kInvalid;
      }
      return on_done(r, state);
    case wire::FrameType::kFailed: {
      wire::Failed failed;
      if (const char* error = parse_failed(state.answer.payload(), failed); error != nullptr) {
        invalid(r, error);
        return Ending::kInvalid;
      }
      const ngx_str_t message = one_line(r->pool, failed.message);
      ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "job failed in mid-answer: %V", &message);
      if (!state.answer_is_events) {
        return Ending::kCutShort;
      }
      event = render_error_event(r->pool, failed);
      return Ending::kComplete;
    }
    case wire::FrameType::kGoodbye:
      return log_goodbye(r, state.answer.payload()) ? Ending::kCutShort : Ending::kInvalid;
    default:
      invalid(r, "a frame that does not belong into an answer");
      return Ending::kInvalid;
  }
}

// The answer is over, well or badly.
void end_answer(ngx_http_request_t* r, Ending ending, bool last_frame) noexcept {
  ngx_http_upstream_t* u = r->upstream;
  if (ending == Ending::kComplete) {
    u->length = 0;
    u->keepalive = last_frame ? 1 : 0;
  } else {
    u->error = 1;
  }
}

// Behind all that the pipe has read so far.
void append_in(ngx_event_pipe_t* pipe, ngx_chain_t* link) noexcept {
  link->next = nullptr;
  if (pipe->in != nullptr) {
    *pipe->last_in = link;
  } else {
    pipe->in = link;
  }
  pipe->last_in = &link->next;
}

ngx_buf_t* link_shadow(ngx_event_pipe_t* pipe, ngx_buf_t* buf, u_char* from, u_char* to) noexcept {
  ngx_chain_t* link = ngx_chain_get_free_buf(pipe->pool, &pipe->free);
  if (link == nullptr) {
    return nullptr;
  }
  ngx_buf_t* b = link->buf;
  ngx_memzero(b, sizeof *b);
  b->pos = from;
  b->last = to;
  b->start = buf->start;
  b->end = buf->end;
  b->tag = pipe->tag;
  b->temporary = 1;
  b->recycled = 1;
  b->num = buf->num;
  append_in(pipe, link);
  return b;
}

// An answer that is not whole must not look whole: the pipe then ends the client's connection in
// error.
void end_pipe(ngx_http_request_t* r, ngx_event_pipe_t* pipe, Ending ending,
              bool last_frame) noexcept {
  if (ending == Ending::kComplete) {
    pipe->upstream_done = 1;
    r->upstream->keepalive = last_frame ? 1 : 0;
  } else {
    pipe->upstream_error = 1;
  }
}

// Text of our own goes behind what the pipe has.
bool link_own(ngx_event_pipe_t* pipe, const ngx_str_t& text) noexcept {
  ngx_buf_t* b = ngx_create_temp_buf(pipe->pool, text.len);
  if (b == nullptr) {
    return false;
  }
  b->last = ngx_cpymem(b->last, text.data, text.len);
  b->shadow = nullptr;
  ngx_chain_t* link = ngx_alloc_chain_link(pipe->pool);
  if (link == nullptr) {
    return false;
  }
  link->buf = b;
  b->tag = pipe->tag;
  append_in(pipe, link);
  return true;
}

}  // namespace

ngx_int_t read_answer_head(ngx_http_request_t* r) noexcept {
  ngx_buf_t& b = r->upstream->buffer;
  RequestState& state = *find_state(r);
  for (;;) {
    const std::string_view bytes(reinterpret_cast<char*>(b.pos),
                                 static_cast<size_t>(b.last - b.pos));
    const wire::Decoded decoded = wire::decode(bytes, wire::Limits{.submit_bytes = 0});
    if (decoded.kind == wire::Decoded::kBad) {
      return invalid(r, decoded.error);
    }
    if (decoded.kind == wire::Decoded::kIncomplete) {
      return wait_for_more(r, state, decoded.needed);
    }
    b.pos += decoded.consumed;
    const std::string_view payload = decoded.frame.payload;
    switch (decoded.frame.header.type) {
      case wire::FrameType::kAccepted:
        if (const char* error = on_accepted(state, payload); error != nullptr) {
          return invalid(r, error);
        }
        renew_read_timeout(r->upstream);
        break;
      case wire::FrameType::kProgress:
        renew_read_timeout(r->upstream);
        break;
      case wire::FrameType::kHead: {
        const ngx_int_t rc = on_head(r, state, payload);
        const bool small = b.start == state.first_buffer;
        return rc == NGX_OK && (!open_pipe(r) || (small && !enlarge(r))) ? NGX_ERROR : rc;
      }
      case wire::FrameType::kFailed:
        return on_failed(r, state, payload, b.pos == b.last);
      case wire::FrameType::kGoodbye:
        return on_goodbye(r, state, payload);
      default:
        return invalid(r, "a frame that cannot begin an answer");
    }
  }
}

ngx_int_t begin_answer(void* request) noexcept {
  auto* r = static_cast<ngx_http_request_t*>(request);
  ngx_http_upstream_t* u = r->upstream;
  // Only DONE ends the answer: a connection that closes before it has broken off, whatever was
  // promised.
  u->length = 1;
  if (u->buffering) {
    u->pipe->length = static_cast<off_t>(wire::kHeaderBytes);
  }
  if (find_state(r)->websocket != nullptr) {
    begin_websocket(r);
  }
  return NGX_OK;
}

ngx_int_t read_answer(void* request, ssize_t bytes) noexcept {
  auto* r = static_cast<ngx_http_request_t*>(request);
  ngx_http_upstream_t* u = r->upstream;
  RequestState& state = *find_state(r);
  u_char* at = u->buffer.last;
  u->buffer.last += bytes;
  u_char* const end = u->buffer.last;
  if (state.answer_is_problem) {
    u->length = 0;
    return emit(r, at, end);
  }
  if (state.websocket != nullptr) {
    answer_websocket(r, state);  // all that came before has gone out
  }
  for (;;) {
    switch (state.answer.next(r->pool, at, end)) {
      case AnswerStream::Event::kMore:
        return NGX_OK;
      case AnswerStream::Event::kBad:
        invalid(r, state.answer.error());
        end_answer(r, Ending::kInvalid, false);
        return NGX_OK;
      case AnswerStream::Event::kBytes: {
        const std::string_view part = state.answer.bytes();
        state.chunks += state.answer.begins() ? 1 : 0;
        if (!keeps_promise(r, state, part.size())) {
          end_answer(r, Ending::kInvalid, false);
          return NGX_OK;
        }
        auto* from = reinterpret_cast<u_char*>(const_cast<char*>(part.data()));
        if (emit(r, from, from + part.size()) != NGX_OK) {
          return NGX_ERROR;
        }
        break;
      }
      case AnswerStream::Event::kFrame: {
        ngx_str_t event{0, nullptr};
        const Ending ending = on_frame(r, state, event);
        if (event.len > 0 && emit(r, event.data, event.data + event.len) != NGX_OK) {
          return NGX_ERROR;
        }
        if (ending != Ending::kGoesOn) {
          end_answer(r, ending, at == end);
          return NGX_OK;
        }
        break;
      }
    }
  }
}

ngx_int_t read_answer_buffered(ngx_event_pipe_t* pipe, ngx_buf_t* buf) noexcept {
  if (buf->pos == buf->last || pipe->upstream_done) {
    return NGX_OK;
  }
  auto* r = static_cast<ngx_http_request_t*>(pipe->input_ctx);
  RequestState& state = *find_state(r);
  u_char* at = buf->pos;
  ngx_buf_t* last = nullptr;
  ngx_buf_t** shadow = &buf->shadow;
  pipe->length = 1;
  for (bool more = true; more;) {
    switch (state.answer.next(r->pool, at, buf->last)) {
      case AnswerStream::Event::kMore:
        more = false;
        break;
      case AnswerStream::Event::kBad:
        invalid(r, state.answer.error());
        end_pipe(r, pipe, Ending::kInvalid, false);
        more = false;
        break;
      case AnswerStream::Event::kBytes: {
        const std::string_view part = state.answer.bytes();
        state.chunks += state.answer.begins() ? 1 : 0;
        if (!keeps_promise(r, state, part.size())) {
          end_pipe(r, pipe, Ending::kInvalid, false);
          more = false;
          break;
        }
        auto* from = reinterpret_cast<u_char*>(const_cast<char*>(part.data()));
        last = link_shadow(pipe, buf, from, from + part.size());
        if (last == nullptr) {
          return NGX_ERROR;
        }
        *shadow = last;
        shadow = &last->shadow;
        break;
      }
      case AnswerStream::Event::kFrame: {
        ngx_str_t event{0, nullptr};
        const Ending ending = on_frame(r, state, event);
        if (event.len > 0 && !link_own(pipe, event)) {
          return NGX_ERROR;
        }
        if (ending != Ending::kGoesOn) {
          end_pipe(r, pipe, ending, at == buf->last);
          more = false;
        }
        break;
      }
    }
  }
  if (last == nullptr) {
    return ngx_event_pipe_add_free_buf(pipe, buf);
  }
  last->shadow = buf;
  last->last_shadow = 1;
  return NGX_OK;
}

}  // namespace penstock
