#include "ngx_module/hand_over/answer_head.h"

#include <algorithm>
#include <utility>

#include "ngx_module/admit/degrade.h"
#include "ngx_module/admit/refuse.h"
#include "ngx_module/hand_over/answer_body.h"
#include "ngx_module/hand_over/answer_headers.h"
#include "ngx_module/hand_over/failure.h"
#include "ngx_module/hand_over/settle_up.h"
#include "ngx_module/hand_over/stored_file.h"
#include "ngx_module/hand_over/websocket.h"
#include "ngx_module/reply/reply.h"
#include "ngx_module/request/request.h"
#include "shared/base/clock.h"
#include "shared/wire/messages.h"

namespace penstock {
namespace {

constexpr uint64_t kFirstStatus = 200;

bool is_header_text(std::string_view text) noexcept {
  return std::none_of(text.begin(), text.end(),
                      [](unsigned char c) { return c < 0x20 || c > 0x7E; });
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
  note_place(state, accepted.position, accepted.eta_ms);
  state.counts = accepted.counts != 0;
  if (accepted.promised != 0) {
    hand_over(state.receipt);
  }
  return nullptr;
}

const char* on_progress(RequestState& state, std::string_view payload) noexcept {
  wire::Progress progress;
  if (const char* error = wire::parse(payload, progress); error != nullptr) {
    return error;
  }
  note_place(state, progress.position, progress.eta_ms);
  return nullptr;
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
  if (!loc_conf(r)->asks && !push_timing(r, state, head)) {
    return NGX_ERROR;
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
  if (head.earlier != 0 && !note_earlier(r, state)) {
    return NGX_ERROR;
  }
  state.duplicate = head.duplicate != 0;
  state.queue_us = head.queue_us;
  u->headers_in.status_n = static_cast<ngx_uint_t>(head.status);
  u->state->status = u->headers_in.status_n;
  u->headers_in.content_length_n = static_cast<off_t>(head.content_length_plus1) - 1;
  if (u->headers_in.content_length_n < -1) {
    return invalid(r, "content_length is impossible");
  }
  ngx_log_debug4(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                 "penstock got an answer from %V: status %ui, job %*s", u->peer.name,
                 u->headers_in.status_n, state.job_id_size, state.job_id_bytes);
  state.answer_begun = true;
  if (!loc_conf(r)->asks) {
    u->peer.tries = 1;  // its job has run: whatever its status, it is the answer
  }
  state.answer_waits = head.opens != 0;
  if (state.answer_waits && !state.answer_is_events) {
    return invalid(r, "a stream that waits and has no events");
  }
  state.begun_ns = monotonic_ns();
  state.answer_left = u->headers_in.content_length_n;
  if (head.promised != 0) {
    state.promised = true;
    hand_over(state.receipt);
  }
  return head.file.empty() ? NGX_OK : turn_to_file(r, state, head.file, type);
}

// The whole answer is a problem: it takes the place of the frames in the upstream's buffer.
void put_problem(ngx_http_request_t* r, RequestState& state, ngx_uint_t status, ngx_str_t body,
                 bool last_frame) noexcept {
  ngx_http_upstream_t* u = r->upstream;
  u->headers_in.status_n = status;
  u->state->status = status;
  u->headers_in.content_length_n = static_cast<off_t>(body.len);
  state.answer_begun = true;
  state.answer_is_problem = true;
  u->keepalive = last_frame ? 1 : 0;
  u->buffering = 0;
  u->buffer.start = u->buffer.pos = body.data;
  u->buffer.last = u->buffer.end = body.data + body.len;
  set_content_type(r, kProblemType);
}

ngx_int_t answer_with_problem(ngx_http_request_t* r, RequestState& state,
                              const wire::Failed& failed, bool last_frame) noexcept {
  const ngx_str_t body = render_problem(r->pool, problem_of(failed));
  if (body.data == nullptr) {
    return NGX_ERROR;
  }
  ngx_log_debug4(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                 "penstock was refused by %V: status %uL, code %*s", r->upstream->peer.name,
                 failed.status, failed.code.size(), failed.code.data());
  put_problem(r, state, static_cast<ngx_uint_t>(failed.status), body, last_frame);
  state.retry_after_s = static_cast<int64_t>(failed.retry_after_s);
  if (state.job_id_size == 0) {
    // It has refused: another may be asked, also for a promise.
    r->upstream->conf = &loc_conf(r)->upstream;
  }
  if (failed.status == NGX_HTTP_SERVICE_UNAVAILABLE) {
    state.outcome = Outcome::kBusy;
  }
  // A failure of ours gives back what was charged: the limits are told of as they will then stand.
  state.overdue = is_overdue(r, state, failed.code);
  const bool told = failed.status < NGX_HTTP_INTERNAL_SERVER_ERROR || state.duplicate ||
                    state.overdue || tell_of_limits(r, state, true);
  return told && push_answer_headers(r, state, state.retry_after_s)
             ? push_refusal_headers(r, state, failed.headers)
             : NGX_ERROR;
}

// No earlier answer is kept: what its limits have said is said now, and the operator's error_page
// has the word as it would have had then.
ngx_int_t refuse_after_all(ngx_http_request_t* r, RequestState& state, bool last_frame) noexcept {
  Charges& held = *std::exchange(state.held, nullptr);
  state.met.take_off(MetLimits::kDegraded);
  auto* conf =
      static_cast<ngx_http_upstream_conf_t*>(ngx_palloc(r->pool, sizeof *r->upstream->conf));
  OverLimit told;
  if (conf == nullptr || !tell_over_limit(r, state, held, told) ||
      (told.retry_after_s > 0 && !push_retry_headers(r, told.retry_after_s))) {
    return NGX_ERROR;
  }
  *conf = *r->upstream->conf;
  conf->intercept_errors = 1;
  r->upstream->conf = conf;
  put_problem(r, state, static_cast<ngx_uint_t>(told.status), told.body, last_frame);
  return NGX_OK;
}

ngx_int_t on_failed(ngx_http_request_t* r, RequestState& state, std::string_view payload,
                    bool last_frame) noexcept {
  wire::Failed failed;
  if (const char* error = parse_failed(payload, failed); error != nullptr) {
    return invalid(r, error);
  }
  return state.held != nullptr && failed.code == wire::kNoEarlierAnswer
             ? refuse_after_all(r, state, last_frame)
             : answer_with_problem(r, state, failed, last_frame);
}

// penstockd will not serve this connection; another one, or another server, may do.
ngx_int_t on_goodbye(ngx_http_request_t* r, RequestState& state,
                     std::string_view payload) noexcept {
  if (!log_goodbye(r, payload)) {
    return NGX_HTTP_UPSTREAM_INVALID_HEADER;
  }
  if (loc_conf(r)->console != nullptr) {  // whoever asks here is to know why
    wire::Goodbye goodbye;
    wire::parse(payload, goodbye);
    const bool denied = goodbye.denied != 0;
    return answer_with_problem(r, state,
                               {.status = denied ? 403U : 503U,
                                .code = denied ? "forbidden" : "busy",
                                .message = goodbye.message,
                                .retry_after_s = denied ? 0U : 1U},
                               false);
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

}  // namespace

bool tell_of_limits(ngx_http_request_t* r, RequestState& state, bool given_back) noexcept {
  limit::Decision decisions[kMaxCharges];
  ChargeResult results[kMaxCharges];
  const size_t count = as_they_stand(state.receipt, given_back, decisions, results);
  return count == 0 ||
         push_rate_headers(r, state.tier, {results, count}, false, state.rate_headers);
}

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
        if (const char* error = on_progress(state, payload); error != nullptr) {
          return invalid(r, error);
        }
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

}  // namespace penstock
