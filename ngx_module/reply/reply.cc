#include "ngx_module/reply/reply.h"

#include "ngx_module/conf/text.h"
#include "ngx_module/request/known_key.h"

namespace penstock {
namespace {

ngx_http_output_header_filter_pt next_header_filter;
ngx_http_output_body_filter_pt next_body_filter;

bool operator_has_page_for(ngx_http_request_t* r, int status) noexcept {
  auto* core =
      static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(r, ngx_http_core_module));
  if (r->error_page || core->error_pages == nullptr) {
    return false;
  }
  const auto* pages = static_cast<ngx_http_err_page_t*>(core->error_pages->elts);
  for (ngx_uint_t i = 0; i < core->error_pages->nelts; ++i) {
    if (pages[i].status == status) {
      return true;
    }
  }
  return false;
}

// No page of the operator's has what a challenge has: what to solve to go on.
bool is_challenged(ngx_http_request_t* r) noexcept {
  const RequestState* state = find_state(r);
  return state != nullptr && state->outcome == Outcome::kChallenged;
}

struct PageWords {
  std::string_view code, detail;
};

PageWords words_for(ngx_uint_t status) noexcept {
  switch (status) {
    case 400:
      return {"invalid_request", "The request is not valid HTTP."};
    case 401:
      return {"unauthorized", "Credentials are missing or not accepted."};
    case 403:
      return {"forbidden", "Access is denied."};
    case 404:
      return {"not_found", "There is nothing here."};
    case 405:
      return {"method_not_allowed", "The method is not allowed here."};
    case 408:
      return {"invalid_request", "The request did not arrive in time."};
    case 412:
      return {"invalid_request", "What is here is not what the request's conditions are about."};
    case 413:
      return {"too_large", "The request body is larger than this server accepts."};
    case 416:
      return {"invalid_request", "The range is past the end."};
    case 429:
      return {"rate_limit_exceeded", "Too many requests."};
    case 502:
      return {"engine_failed", "The queue could not be reached, or broke off. Try again."};
    case 503:
      return {"busy", "The service is busy. Try again later."};
    case 504:
      return {"deadline_exceeded", "The answer did not come in time."};
    default:
      return {status < 500 ? "invalid_request" : "internal_error", "The request failed."};
  }
}

// Of penstock_require_key.
PageWords words_for(KeyState key) noexcept {
  switch (key) {
    case KeyState::kUnknown:
      return {"invalid_api_key", "This key is not known: it was never issued, or was revoked."};
    case KeyState::kExpired:
      return {"invalid_api_key", "This key has ended."};
    default:
      return {"invalid_api_key", "A key is wanted, as Authorization: Bearer KEY."};
  }
}

// Whether penstock_require_key may have refused it.
bool is_key_wanted(ngx_http_request_t* r) noexcept {
  return r->err_status == NGX_HTTP_UNAUTHORIZED && loc_conf(r)->require_key == 1;
}

// Of a range past the end, once Nginx has told how long it is: "bytes */123". `out` holds it.
std::string_view range_detail(ngx_http_request_t* r, char (&out)[96]) noexcept {
  static constexpr std::string_view kUnit = "bytes */";
  const ngx_table_elt_t* const told = r->headers_out.content_range;
  const std::string_view range = told != nullptr ? view(told->value) : std::string_view();
  if (!range.starts_with(kUnit) || range.size() - kUnit.size() > Text::kMaxDigits) {
    return {};
  }
  Text text(out);
  text.raw("The range begins past the end: there are ")
      .raw(range.substr(kUnit.size()))
      .raw(" bytes, from 0 on.");
  return {out, static_cast<size_t>(text.at() - out)};
}

// Only pages that Nginx makes itself: err_status is set, what follows is its HTML, and no answer
// has come.
bool is_own_error_page(ngx_http_request_t* r) noexcept {
  static constexpr ngx_uint_t kFirstError = 400;
  if (r != r->main || r->err_status < kFirstError || !(loc_conf(r)->passes || is_key_wanted(r)) ||
      view(r->headers_out.content_type) != "text/html") {
    return false;
  }
  const RequestState* state = find_state(r);
  return state == nullptr || !state->answer_begun;
}

// One server was busy and the others could not be reached: busy is what the caller can act upon.
void prefer_busy(ngx_http_request_t* r, const RequestState& state) noexcept {
  if (r->err_status == NGX_HTTP_BAD_GATEWAY && state.outcome == Outcome::kBusy) {
    r->err_status = NGX_HTTP_SERVICE_UNAVAILABLE;
    r->headers_out.status = NGX_HTTP_SERVICE_UNAVAILABLE;
    push_retry_headers(r, ngx_max(state.retry_after_s, int64_t{1}));
  }
}

ngx_int_t header_filter(ngx_http_request_t* r) noexcept {
  if (!is_own_error_page(r)) {
    return next_header_filter(r);
  }
  RequestState* state = state_of(r);
  if (state == nullptr) {
    return next_header_filter(r);
  }
  prefer_busy(r, *state);
  if (r->err_status == NGX_HTTP_NOT_ALLOWED) {
    push_header(r, "Allow", str(loc_conf(r)->asks ? "GET, HEAD, DELETE" : "GET, HEAD, POST"));
  }
  const KnownKey* const key = is_key_wanted(r) ? state->caller_key : nullptr;
  PageWords words = key != nullptr && key->state != KeyState::kKnown ? words_for(key->state)
                                                                     : words_for(r->err_status);
  char range[96];
  if (r->err_status == NGX_HTTP_RANGE_NOT_SATISFIABLE) {
    if (const std::string_view detail = range_detail(r, range); !detail.empty()) {
      words.detail = detail;
    }
  }
  const ngx_str_t body = render_problem(
      r->pool,
      {.status = static_cast<int>(r->err_status), .detail = words.detail, .code = words.code});
  state->problem_body = body.data == nullptr ? nullptr : chain_of(r, body);
  if (state->problem_body != nullptr) {
    set_content_type(r, kProblemType);
    r->headers_out.content_length_n = static_cast<off_t>(body.len);
  }
  return next_header_filter(r);
}

ngx_int_t body_filter(ngx_http_request_t* r, ngx_chain_t* in) noexcept {
  auto* state = static_cast<RequestState*>(ngx_http_get_module_ctx(r, ngx_http_penstock_module));
  if (in == nullptr || state == nullptr || state->problem_body == nullptr) {
    return next_body_filter(r, in);
  }
  ngx_chain_t* instead = state->problem_body;
  state->problem_body = nullptr;
  for (; in != nullptr; in = in->next) {
    in->buf->pos = in->buf->last;  // Nginx's page counts as sent
  }
  return next_body_filter(r, instead);
}

}  // namespace

ngx_chain_t* chain_of(ngx_http_request_t* r, ngx_str_t body) noexcept {
  struct Link {
    ngx_chain_t chain;
    ngx_buf_t buf;
  };
  Link* link = make<Link>(r->pool);
  if (link == nullptr) {
    return nullptr;
  }
  link->chain.buf = &link->buf;
  link->buf.pos = body.data;
  link->buf.last = body.data + body.len;
  link->buf.memory = 1;
  link->buf.last_buf = r == r->main ? 1 : 0;
  link->buf.last_in_chain = 1;
  return &link->chain;
}

void install_problem_filters() noexcept {
  next_header_filter = ngx_http_top_header_filter;
  ngx_http_top_header_filter = header_filter;
  next_body_filter = ngx_http_top_body_filter;
  ngx_http_top_body_filter = body_filter;
}

ngx_str_t render_problem(ngx_pool_t* pool, const http::Problem& problem) noexcept {
  const size_t bound = http::bound(problem);
  auto* out = static_cast<u_char*>(ngx_pnalloc(pool, bound));
  if (out == nullptr) {
    return {0, nullptr};
  }
  const size_t size = http::render(problem, reinterpret_cast<char*>(out), bound);
  return {size, size == 0 ? nullptr : out};
}

bool push_retry_headers(ngx_http_request_t* r, int64_t seconds) noexcept {
  RequestState* state = find_state(r);
  if (state != nullptr) {
    take_back(state->retry);  // of a refusal that an error_page has led away from
  }
  size_t count = 0;
  return push_retry(r->pool, seconds, [&](std::string_view name, ngx_str_t value) noexcept {
    ngx_table_elt_t* header = push_header(r, name, value);
    if (header != nullptr && state != nullptr) {
      state->retry[count++] = header;
    }
    return header != nullptr;
  });
}

ngx_int_t refuse_request(ngx_http_request_t* r, const http::Problem& problem) noexcept {
  return refuse_request(r, problem.status, problem.retry_after_s, render_problem(r->pool, problem));
}

ngx_int_t refuse_request(ngx_http_request_t* r, int status, int64_t retry_after_s, ngx_str_t body,
                         std::string_view type) noexcept {
  if (retry_after_s > 0 && !push_retry_headers(r, retry_after_s)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (operator_has_page_for(r, status) && !is_challenged(r)) {
    return status;
  }
  ngx_chain_t* chain = body.data == nullptr ? nullptr : chain_of(r, body);
  if (chain == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  // Nobody shall send a body that is not wanted. Who waited to be asked for it sends none: what it
  // sent next would be taken for that body (RFC 9110, 10.1.1).
  if (r->headers_in.expect != nullptr && r->expect_tested == 0) {
    r->keepalive = 0;
  }
  r->expect_tested = 1;
  if (ngx_http_discard_request_body(r) != NGX_OK) {
    r->keepalive = 0;
  }
  r->err_status = 0;
  r->headers_out.status = static_cast<ngx_uint_t>(status);
  r->headers_out.content_length_n = static_cast<off_t>(body.len);
  set_content_type(r, type);
  ngx_int_t rc = ngx_http_send_header(r);
  if (rc == NGX_OK && !r->header_only) {
    rc = ngx_http_output_filter(r, chain);
  }
  ngx_http_finalize_request(r, rc);
  return NGX_DONE;
}

}  // namespace penstock
