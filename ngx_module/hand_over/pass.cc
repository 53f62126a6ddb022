#include "ngx_module/hand_over/pass.h"

#include <algorithm>

#include "ngx_module/admit/cost.h"
#include "ngx_module/admit/job_headers.h"
#include "ngx_module/admit/refuse.h"
#include "ngx_module/hand_over/answer_body.h"
#include "ngx_module/hand_over/answer_head.h"
#include "ngx_module/hand_over/receipt_codec.h"
#include "ngx_module/hand_over/settle_up.h"
#include "ngx_module/reply/page.h"
#include "ngx_module/request/request.h"
#include "ngx_module/request/telemetry.h"
#include "ngx_module/request/who.h"
#include "shared/base/clock.h"
#include "shared/base/version.h"
#include "shared/http/passed_headers.h"
#include "shared/wire/messages.h"

namespace penstock {
namespace {

// A console's location asks as an operator's tool: penstockd says whether this Nginx may be one.
wire::Hello hello(const LocConf& loc) noexcept {
  wire::Hello hello;
  hello.version = wire::kVersion;
  hello.name = version();
  hello.role =
      static_cast<uint64_t>(loc.console != nullptr ? wire::Role::kTool : wire::Role::kCaller);
  return hello;
}

// Those that go on to the server that the job runs on, "Name: value\n" each. False when memory ran
// out. Of more than may be there the first count; what may not stand in a line is left out.
bool pass_headers(ngx_http_request_t* r, std::string_view& lines) noexcept {
  const auto each = [&](const auto& visit) noexcept {
    size_t count = 0;
    each_of<ngx_table_elt_t>(r->headers_in.headers, [&](const ngx_table_elt_t& header) noexcept {
      if (http::is_passed_on(lower_name(header)) && http::is_header_value(view(header.value))) {
        visit(lower_name(header), view(header.value));
        ++count;
      }
      return count < http::kMaxHeaderLines;
    });
  };
  constexpr size_t kAround = 3;  // ": " and the line's end
  size_t size = 0;
  each([&](std::string_view name, std::string_view value) noexcept {
    size += name.size() + value.size() + kAround;
  });
  auto* const begin = size == 0 ? nullptr : static_cast<char*>(ngx_pnalloc(r->pool, size));
  if (begin == nullptr) {
    return size == 0;
  }
  Text text(begin);
  each([&](std::string_view name, std::string_view value) noexcept {
    text.raw(name).literal(": ").raw(value).literal("\n");
  });
  lines = {begin, size};
  return true;
}

bool asks_for_stream(ngx_http_request_t* r, RequestState& state) noexcept {
  if (!state.body_read || !has_body(r)) {
    return false;
  }
  const http::BodyField stream = body_of(r, state.search)[Body::kStream];
  return stream.type == http::BodyField::Type::kBoolean && stream.text == "true";
}

// Where `stream` means server-sent events: those of OpenAI's and Anthropic's APIs. Elsewhere it may
// be anything.
bool streams_events(std::string_view path) noexcept {
  constexpr std::string_view kEnds[] = {"/completions", "/responses", "/messages"};
  return std::any_of(std::begin(kEnds), std::end(kEnds),
                     [&](std::string_view end) { return path.ends_with(end); });
}

// The submit message without the body, which follows in the chain.
bool describe(ngx_http_request_t* r, RequestState& state, wire::Submit& submit) noexcept {
  const LocConf& loc = *loc_conf(r);
  submit.queue = view(loc.queue);
  submit.model = model_of(r, state);
  if (state.tier != nullptr) {
    submit.tier = view(state.tier->name);
    submit.priority = state.tier->priority;
    submit.weight = state.tier->weight;
  }
  submit.method = view(r->method_name);
  submit.path = view(r->uri);
  submit.query = view(r->args);
  if (r->headers_in.content_type != nullptr) {
    submit.content_type = view(r->headers_in.content_type->value);
  }
  submit.override = view(state.replace);
  submit.limited_us = passed_us(r);
  submit.cost = state.cost[static_cast<size_t>(Unit::kTokens)];
  submit.dedupe = loc.dedupe == 1 ? 1 : 0;
  submit.on_duplicate = static_cast<uint64_t>(loc.reject_duplicates ? wire::OnDuplicate::kReject
                                                                    : wire::OnDuplicate::kJoin);
  submit.max_wait_ms = loc.max_wait;
  submit.earlier = static_cast<uint64_t>(loc.earlier_of);
  submit.earlier_age_s = loc.earlier_age_s;
  submit.earlier_when =
      static_cast<uint64_t>(state.held != nullptr      ? wire::EarlierWhen::kOnly
                            : loc.earlier_if_busy == 1 ? wire::EarlierWhen::kBusy
                                                       : wire::EarlierWhen::kNever);
  const bool streams = asks_for_stream(r, state);
  const JobHeaders* const more = state.job_headers;
  if (more != nullptr) {
    more->put(submit, !streams && !more->want_promise());
    submit.jobs_path = view(loc.jobs_path);
    if (more->may_outlive()) {
      submit.receipt = encode_receipt(r->pool, *main_conf(r), state.receipt);
    }
  }
  if (streams && streams_events(submit.path)) {
    submit.news_ms = loc.waiting_events;
    submit.news_events =
        loc.waiting_as_events || (more != nullptr && !more->events.empty()) ? 1 : 0;
    submit.jobs_path = view(loc.jobs_path);
  }
  return pass_headers(r, submit.headers) && loc.owner.get(r, submit.owner) &&
         loc.share.get(r, submit.share);
}

// What is asked about jobs: the part of the path behind the location's own.
bool describe(ngx_http_request_t* r, const RequestState& state, wire::Ask& ask) noexcept {
  const LocConf& loc = *loc_conf(r);
  const std::string_view path = view(r->uri);
  const Console* console = loc.console;
  const std::string_view prefix = view(console != nullptr ? console->prefix : loc.jobs_path);
  // What operators are told has a head as Nginx makes it.
  ask.method = console != nullptr && r->method == NGX_HTTP_HEAD ? "GET" : view(r->method_name);
  ask.path = path.substr(0, prefix.size()) == prefix ? path.substr(prefix.size()) : "/?";
  ask.query = view(r->args);
  ask.last_event_id = find_header(r, "last-event-id");
  ask.websocket = state.asks_upgrade ? 1 : 0;
  ask.jobs_path = console != nullptr ? view(console->jobs) : prefix;
  return console != nullptr ? describe_who(r, ask.owner) : loc.owner.get(r, ask.owner);
}

// HELLO and the message, `trailing` bytes of which follow in the chain.
template <typename M>
ngx_chain_t* write_message(ngx_http_request_t* r, const M& message, size_t trailing,
                           size_t spare) noexcept {
  const wire::Hello greeting = hello(*loc_conf(r));
  const size_t size = wire::encoded_size(greeting) + wire::encoded_size(message) + spare;
  ngx_buf_t* buf = ngx_create_temp_buf(r->pool, size);
  ngx_chain_t* link = ngx_alloc_chain_link(r->pool);
  if (buf == nullptr || link == nullptr) {
    return nullptr;
  }
  char* out = wire::encode(reinterpret_cast<char*>(buf->last), 0, greeting);
  out = wire::encode(out, kJob, message, trailing);
  buf->last = reinterpret_cast<u_char*>(out);
  link->buf = buf;
  link->next = nullptr;
  return link;
}

ngx_int_t create_question(ngx_http_request_t* r, const RequestState& state) noexcept {
  wire::Ask ask;
  if (!describe(r, state, ask)) {
    return NGX_ERROR;
  }
  r->upstream->request_bufs = write_message(r, ask, 0, 0);
  return r->upstream->request_bufs == nullptr ? NGX_ERROR : NGX_OK;
}

// The body's buffers, each as it is: in memory or in its temporary file.
ngx_int_t append_body(ngx_http_request_t* r, ngx_chain_t** tail) noexcept {
  for (const ngx_chain_t* body = r->request_body == nullptr ? nullptr : r->request_body->bufs;
       body != nullptr; body = body->next) {
    ngx_buf_t* buf = static_cast<ngx_buf_t*>(ngx_alloc_buf(r->pool));
    ngx_chain_t* link = ngx_alloc_chain_link(r->pool);
    if (buf == nullptr || link == nullptr) {
      return NGX_ERROR;
    }
    ngx_memcpy(buf, body->buf, sizeof(ngx_buf_t));
    link->buf = buf;
    link->next = nullptr;
    *tail = link;
    tail = &link->next;
  }
  return NGX_OK;
}

// What comes from penstockd goes there until the answer begins.
void use_first_buffer(ngx_http_request_t* r, RequestState& state) noexcept {
  ngx_buf_t& b = r->upstream->buffer;
  b.start = b.pos = b.last = state.first_buffer;
  b.end = state.first_buffer + sizeof state.first_buffer;
  b.temporary = 1;
  b.tag = r->upstream->output.tag;
}

ngx_int_t create_request(ngx_http_request_t* r) noexcept {
  RequestState* state = state_of(r);
  if (state == nullptr) {
    return NGX_ERROR;
  }
  use_first_buffer(r, *state);
  if (loc_conf(r)->asks) {
    return create_question(r, *state);
  }
  wire::Submit submit;
  if (!describe(r, *state, submit)) {
    return NGX_ERROR;
  }
  state->limit_ns = monotonic_ns() - state->came_ns;
  const size_t body = body_size(r);
  const size_t trailing = body == 0 ? 0 : wire::kFieldHeaderBytes + body;
  ngx_chain_t* link = write_message(r, submit, trailing, wire::kFieldHeaderBytes);
  if (link == nullptr) {
    return NGX_ERROR;
  }
  if (body > 0) {
    link->buf->last = reinterpret_cast<u_char*>(
        wire::write_field_header(reinterpret_cast<char*>(link->buf->last), wire::Submit::kBodyTag,
                                 static_cast<uint32_t>(body)));
  }
  r->upstream->request_bufs = link;
  const ngx_int_t whole = append_body(r, &link->next);
  ngx_log_debug3(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                 "penstock hands over %uz bytes to queue \"%V\", %uL tokens reserved", body,
                 &loc_conf(r)->queue, submit.cost);
  return whole;
}

// A penstockd that may have made a promise is the last that is asked for it.
void choose_conf(ngx_http_request_t* r, const RequestState& state) noexcept {
  LocConf& loc = *loc_conf(r);
  r->upstream->conf = wants_promise(state) ? &loc.upstream_of_promises : &loc.upstream;
}

// Another server is tried: nothing of the last one's answer stays, and a body of ours is no buffer
// for frames.
ngx_int_t reinit_request(ngx_http_request_t* r) noexcept {
  RequestState* state = find_state(r);
  if (state->answer_is_problem) {
    use_first_buffer(r, *state);
    r->upstream->buffering = r->upstream->conf->buffering != 0 ? 1 : 0;
    if (!tell_of_limits(r, *state, false)) {
      return NGX_ERROR;
    }
  }
  state->forget_answer();
  choose_conf(r, *state);
  state->outcome = state->admitted;
  state->retry_after_s = 0;
  return NGX_OK;
}

void abort_request(ngx_http_request_t*) noexcept {}

// The connection is closed unless the answer came whole, and closing it cancels the job.
void finalize_request(ngx_http_request_t* r, ngx_int_t rc) noexcept {
  RequestState* state = find_state(r);
  constexpr ngx_uint_t kFirstServerError = 500;
  const bool answered = r->upstream->header_sent != 0;
  const bool broken = rc >= static_cast<ngx_int_t>(kFirstServerError);
  ngx_log_debug4(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                 "penstock settles, rc %i: done %d, %uL tokens, %uL ms", rc, state->done ? 1 : 0,
                 state->usage.tokens, state->usage.gpu_ms);
  state->settled = true;
  // What penstockd says of an end goes before what Nginx makes of it.
  const bool failed =
      state->failed_status != 0 ? state->failed_status >= kFirstServerError : broken;
  settle_up(r, *state,
            !state->overdue &&
                (failed || (answered && r->upstream->headers_in.status_n >= kFirstServerError)),
            state->overdue || rc == NGX_HTTP_CLIENT_CLOSED_REQUEST);
  if (broken && answered && state->answer_waits) {
    end_in_waiting(r);
  }
  if (!answered && rc != NGX_DECLINED) {  // declined: a file is
    state->forget_answer();               // Nginx has the word
  }
}

void body_is_here(ngx_http_request_t* r) noexcept {
  RequestState& state = *find_state(r);
  if (static_cast<off_t>(body_size(r)) > kMaxBodyBytes) {
    refund(state.receipt, true);
    ngx_http_finalize_request(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE);
    return;
  }
  state.body_read = true;
  if (const Fault fault = loc_conf(r)->asks ? Fault() : fault_of_body(r, state);
      !fault.detail.empty()) {
    const ngx_int_t rc = refuse_fault(r, state, fault);
    if (rc != NGX_DONE) {
      ngx_http_finalize_request(r, rc);
    }
    return;
  }
  ngx_http_upstream_init(r);
}

}  // namespace

ngx_int_t pass_request(ngx_http_request_t* r) noexcept {
  RequestState* state = state_of(r);
  if (state == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  BadHeader bad;
  if (!find_job_headers(r, state->job_headers, bad)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (!bad.detail.empty()) {
    give_all_back(*state);
    return refuse_page(
        r, {.status = 400, .detail = bad.detail, .code = "invalid_request", .param = bad.name});
  }
  return hand_to_upstream(r, *state);
}

ngx_int_t hand_to_upstream(ngx_http_request_t* r, RequestState& state) noexcept {
  LocConf& loc = *loc_conf(r);
  if (ngx_http_upstream_create(r) != NGX_OK) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (r->headers_in.content_length_n > kMaxBodyBytes) {
    refund(state.receipt, true);
    return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
  }
  state.forget_answer();  // of a location that was redirected from
  state.settled = false;
  ngx_http_upstream_t* u = r->upstream;
  ngx_str_set(&u->schema, "penstock://");
  u->output.tag = &ngx_http_penstock_module;
  choose_conf(r, state);
  u->create_request = create_request;
  u->reinit_request = reinit_request;
  u->process_header = read_answer_head;
  u->abort_request = abort_request;
  u->finalize_request = finalize_request;
  u->input_filter_init = begin_answer;
  u->input_filter = read_answer;
  u->input_filter_ctx = r;
  u->buffering = loc.upstream.buffering != 0 ? 1 : 0;
  const ngx_int_t rc = ngx_http_read_client_request_body(r, body_is_here);
  return rc >= NGX_HTTP_SPECIAL_RESPONSE ? rc : NGX_DONE;
}

}  // namespace penstock
