#include "ngx_module/hand_over/answer_body.h"

#include <algorithm>

#include "ngx_module/conf/text.h"
#include "ngx_module/hand_over/failure.h"
#include "ngx_module/hand_over/settle_up.h"
#include "ngx_module/hand_over/websocket.h"
#include "ngx_module/reply/reply.h"
#include "ngx_module/request/request.h"
#include "shared/base/clock.h"
#include "shared/wire/messages.h"

namespace penstock {
namespace {

enum class Ending : uint8_t { kGoesOn, kComplete, kCutShort, kInvalid };

// ---- the two ways out ----

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

bool emit(ngx_http_request_t* r, u_char* from, u_char* to) noexcept {
  ngx_http_upstream_t* u = r->upstream;
  ngx_chain_t* link = ngx_chain_get_free_buf(r->pool, &u->free_bufs);
  if (link == nullptr) {
    return false;
  }
  append_out(u, link, from, to);
  return true;
}

// Without buffering: what is linked to the upstream goes out next.
struct Direct {
  ngx_http_request_t* r;

  // False when memory ran out, as below.
  bool put(u_char* from, u_char* to) noexcept { return emit(r, from, to); }
  bool put_own(const ngx_str_t& text) noexcept { return emit(r, text.data, text.data + text.len); }
  void end(Ending ending, bool last_frame) noexcept {
    ngx_http_upstream_t* u = r->upstream;
    if (ending == Ending::kComplete) {
      u->length = 0;
      u->keepalive = last_frame ? 1 : 0;
    } else {
      u->error = 1;
    }
  }
};

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

// With buffering: each piece is a shadow of the pipe's buffer.
struct Piped {
  ngx_http_request_t* r;
  ngx_event_pipe_t* pipe;
  ngx_buf_t* buf;
  ngx_buf_t* last = nullptr;
  ngx_buf_t** shadow = &buf->shadow;

  bool put(u_char* from, u_char* to) noexcept {
    last = link_shadow(pipe, buf, from, to);
    if (last == nullptr) {
      return false;
    }
    *shadow = last;
    shadow = &last->shadow;
    return true;
  }
  bool put_own(const ngx_str_t& text) noexcept { return link_own(pipe, text); }
  // An answer that is not whole must not look whole: the pipe then ends the client's connection in
  // error.
  void end(Ending ending, bool last_frame) noexcept {
    if (ending == Ending::kComplete) {
      pipe->upstream_done = 1;
      r->upstream->keepalive = last_frame ? 1 : 0;
    } else {
      pipe->upstream_error = 1;
    }
  }
};

// ---- the frames ----

// `data: {problem}\n\n`, the way OpenAI tells of an error in an open stream. What the engine said
// is one line: penstockd has seen to that.
ngx_str_t render_error_event(ngx_pool_t* pool, const wire::Failed& failed) noexcept {
  static constexpr std::string_view kBefore = "data: ";
  static constexpr std::string_view kAfter = "\n\n";
  const ngx_str_t made =
      failed.json.empty() ? render_problem(pool, problem_of(failed)) : ngx_str_t{};
  std::string_view body = failed.json.empty() ? view(made) : failed.json;
  while (body.ends_with('\n')) {
    body.remove_suffix(1);
  }
  auto* out = static_cast<char*>(ngx_pnalloc(pool, kBefore.size() + body.size() + kAfter.size()));
  if (body.empty() || out == nullptr) {
    return {0, nullptr};
  }
  const char* end = Text(out).raw(kBefore).raw(body).raw(kAfter).at();
  return str({out, static_cast<size_t>(end - out)});
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

// DONE: the answer is whole.
Ending on_done(ngx_http_request_t* r, RequestState& state) noexcept {
  wire::Done done;
  if (const char* error = wire::parse(state.answer.payload(), done); error != nullptr) {
    invalid(r, error);
    return Ending::kInvalid;
  }
  state.done = true;
  state.prompt_tokens = std::min(done.prompt_tokens, kMostUsed);
  state.usage = usage_of(done);
  state.usage_estimated = done.estimated != 0;
  return Ending::kComplete;
}

// The answer begins, in a stream that has told of the wait until now.
Ending on_beginning(ngx_http_request_t* r, RequestState& state) noexcept {
  wire::Head head;
  const char* const error = wire::parse(state.answer.payload(), head);
  if (error != nullptr || !state.answer_waits || head.status / 100 != 2 || head.opens != 0) {
    invalid(r, error != nullptr ? error : "a HEAD that does not belong into a stream");
    return Ending::kInvalid;
  }
  state.answer_waits = false;
  state.queue_us = head.queue_us;
  state.begun_ns = monotonic_ns();
  return Ending::kGoesOn;
}

// What is told of the wait; empty: nothing can be told now.
Ending on_note(ngx_http_request_t* r, RequestState& state, std::string_view& text) noexcept {
  wire::Note note;
  const char* const error = wire::parse(state.answer.payload(), note);
  if (error != nullptr || !state.answer_waits) {
    invalid(r, error != nullptr ? error : "a NOTE in an answer");
    return Ending::kInvalid;
  }
  text = note.text;
  note_place(state, note.position, note.eta_ms);
  return Ending::kGoesOn;
}

// A frame in the middle of the answer. `event` is set when something is to be said to the client,
// and `news` to what is in the frame for it.
Ending on_frame(ngx_http_request_t* r, RequestState& state, ngx_str_t& event,
                std::string_view& news) noexcept {
  switch (state.answer.type()) {
    case wire::FrameType::kHead:
      return on_beginning(r, state);
    case wire::FrameType::kNote:
      return on_note(r, state, news);
    case wire::FrameType::kProgress:
      return Ending::kGoesOn;
    case wire::FrameType::kDone:
      if (state.answer_left > 0 || state.answer_waits) {
        invalid(r, state.answer_waits ? "DONE before HEAD" : "fewer bytes than its content_length");
        return Ending::kInvalid;
      }
      return on_done(r, state);
    case wire::FrameType::kFailed: {
      wire::Failed failed;
      if (const char* error = parse_failed(state.answer.payload(), failed); error != nullptr) {
        invalid(r, error);
        return Ending::kInvalid;
      }
      // Its message may quote what was asked.
      const ngx_str_t code = one_line(r->pool, failed.code);
      ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "job failed in mid-answer: %uL, %V",
                    failed.status, &code);
      state.failed_status = failed.status;
      state.overdue = is_overdue(r, state, failed.code);
      if (!state.answer_is_events) {
        return Ending::kCutShort;
      }
      if (failed.status == NGX_HTTP_SERVICE_UNAVAILABLE) {
        state.outcome = Outcome::kBusy;
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

// Behind a whole event of an owner's stream there may be one of its limits. False when memory ran
// out.
template <class Out>
bool add_limits_event(ngx_http_request_t* r, RequestState& state, std::string_view part,
                      Out& out) noexcept {
  const LocConf& loc = *loc_conf(r);
  if (loc.limits_event == nullptr || !state.answer_is_events || !part.ends_with("\n\n") ||
      part.starts_with("retry:") ||
      view(r->uri).substr(std::min(loc.jobs_path.len, r->uri.len)) != "/events") {
    return true;
  }
  const ngx_str_t event = loc.limits_event(r, state);
  return event.len == 0 || out.put_own(event);
}

// Takes all frames off [at, end), and gives the client's part of them to `out`. False when memory
// ran out.
template <class Out>
bool take_frames(ngx_http_request_t* r, RequestState& state, u_char* at, u_char* end,
                 Out& out) noexcept {
  for (;;) {
    switch (state.answer.next(r->pool, at, end)) {
      case AnswerStream::Event::kMore:
        return true;
      case AnswerStream::Event::kBad:
        invalid(r, state.answer.error());
        out.end(Ending::kInvalid, false);
        return true;
      case AnswerStream::Event::kBytes: {
        const std::string_view part = state.answer.bytes();
        state.chunks += state.answer.begins() ? 1 : 0;
        if (state.answer_waits) {
          invalid(r, "CHUNK before HEAD");
        }
        if (state.answer_waits || !keeps_promise(r, state, part.size())) {
          out.end(Ending::kInvalid, false);
          return true;
        }
        auto* from = reinterpret_cast<u_char*>(const_cast<char*>(part.data()));
        if (!out.put(from, from + part.size()) || !add_limits_event(r, state, part, out)) {
          return false;
        }
        break;
      }
      case AnswerStream::Event::kFrame: {
        ngx_str_t event{0, nullptr};
        std::string_view news;
        const Ending ending = on_frame(r, state, event, news);
        auto* from = reinterpret_cast<u_char*>(const_cast<char*>(news.data()));
        if ((event.len > 0 && !out.put_own(event)) ||
            (!news.empty() && !out.put(from, from + news.size()))) {
          return false;
        }
        if (ending != Ending::kGoesOn) {
          out.end(ending, at == end);
          return true;
        }
        break;
      }
    }
  }
}

}  // namespace

void end_in_waiting(ngx_http_request_t* r) noexcept {
  const ngx_str_t event =
      render_error_event(r->pool, {.status = NGX_HTTP_SERVICE_UNAVAILABLE,
                                   .code = "busy",
                                   .message = "The queue was lost before the job began. Try again.",
                                   .retry_after_s = 1});
  ngx_chain_t* const chain = event.len == 0 ? nullptr : chain_of(r, event);
  if (chain != nullptr) {
    ngx_http_output_filter(r, chain);
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
  u_char* const at = u->buffer.last;
  u->buffer.last += bytes;
  if (state.answer_is_problem) {
    u->length = 0;
    return emit(r, at, u->buffer.last) ? NGX_OK : NGX_ERROR;
  }
  if (state.websocket != nullptr) {
    answer_websocket(r, state);  // all that came before has gone out
  }
  Direct out{r};
  return take_frames(r, state, at, u->buffer.last, out) ? NGX_OK : NGX_ERROR;
}

ngx_int_t read_answer_buffered(ngx_event_pipe_t* pipe, ngx_buf_t* buf) noexcept {
  if (buf->pos == buf->last || pipe->upstream_done) {
    return NGX_OK;
  }
  auto* r = static_cast<ngx_http_request_t*>(pipe->input_ctx);
  pipe->length = 1;
  Piped out{r, pipe, buf};
  if (!take_frames(r, *find_state(r), buf->pos, buf->last, out)) {
    return NGX_ERROR;
  }
  if (out.last == nullptr) {
    return ngx_event_pipe_add_free_buf(pipe, buf);
  }
  out.last->shadow = buf;
  out.last->last_shadow = 1;
  return NGX_OK;
}

}  // namespace penstock
