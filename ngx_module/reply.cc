#include "ngx_module/reply.h"

#include <charconv>

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

ngx_chain_t* body_chain(ngx_http_request_t* r, ngx_str_t body) noexcept {
  auto* buf = static_cast<ngx_buf_t*>(ngx_calloc_buf(r->pool));
  ngx_chain_t* link = ngx_alloc_chain_link(r->pool);
  if (buf == nullptr || link == nullptr) {
    return nullptr;
  }
  buf->pos = body.data;
  buf->last = body.data + body.len;
  buf->memory = 1;
  buf->last_buf = r == r->main ? 1 : 0;
  buf->last_in_chain = 1;
  link->buf = buf;
  link->next = nullptr;
  return link;
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
      return {"invalid_request", "The method is not allowed here."};
    case 408:
      return {"invalid_request", "The request did not arrive in time."};
    case 413:
      return {"too_large", "The request body is larger than this server accepts."};
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

// Only error pages that Nginx makes itself: err_status is set, and what follows is its HTML.
bool is_own_error_page(ngx_http_request_t* r) noexcept {
  static constexpr ngx_uint_t kFirstError = 400;
  return r == r->main && r->err_status >= kFirstError && loc_conf(r)->passes &&
         view(r->headers_out.content_type) == "text/html";
}

ngx_int_t header_filter(ngx_http_request_t* r) noexcept {
  if (!is_own_error_page(r)) {
    return next_header_filter(r);
  }
  RequestState* state = state_of(r);
  if (state == nullptr || state->problem_sent) {
    return next_header_filter(r);
  }
  const PageWords words = words_for(r->err_status);
  const ngx_str_t body = render_problem(
      r->pool,
      {.status = static_cast<int>(r->err_status), .detail = words.detail, .code = words.code});
  state->problem_body = body.data == nullptr ? nullptr : body_chain(r, body);
  if (state->problem_body != nullptr) {
    state->problem_sent = true;
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

void install_problem_filters() noexcept {
  next_header_filter = ngx_http_top_header_filter;
  ngx_http_top_header_filter = header_filter;
  next_body_filter = ngx_http_top_body_filter;
  ngx_http_top_body_filter = body_filter;
}

void set_content_type(ngx_http_request_t* r, std::string_view type) noexcept {
  r->headers_out.content_type = str(type);
  r->headers_out.content_type_len = type.size();
  r->headers_out.content_type_lowcase = nullptr;
  ngx_str_null(&r->headers_out.charset);
}

ngx_str_t render_problem(ngx_pool_t* pool, const http::Problem& problem) noexcept {
  const size_t bound = 6 * (problem.detail.size() + problem.code.size() + problem.param.size()) +
                       problem.violated_policies.size() + 512;
  auto* out = static_cast<u_char*>(ngx_pnalloc(pool, bound));
  if (out == nullptr) {
    return {0, nullptr};
  }
  return {http::render(problem, reinterpret_cast<char*>(out), bound), out};
}

ngx_table_elt_t* push_retry_after(ngx_http_request_t* r, int64_t seconds) noexcept {
  char digits[24];
  const char* end = std::to_chars(digits, digits + sizeof digits, seconds).ptr;
  const ngx_str_t value = copy(r->pool, {digits, static_cast<size_t>(end - digits)});
  return value.data == nullptr ? nullptr : push_header(r, "Retry-After", value);
}

ngx_int_t refuse_request(ngx_http_request_t* r, RequestState& state,
                         const http::Problem& problem) noexcept {
  if (problem.retry_after_s > 0 && push_retry_after(r, problem.retry_after_s) == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (operator_has_page_for(r, problem.status)) {
    return problem.status;
  }
  const ngx_str_t body = render_problem(r->pool, problem);
  ngx_chain_t* chain = body.data == nullptr ? nullptr : body_chain(r, body);
  if (chain == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (ngx_http_discard_request_body(r) != NGX_OK) {
    r->keepalive = 0;
  }
  state.problem_sent = true;
  r->headers_out.status = static_cast<ngx_uint_t>(problem.status);
  r->headers_out.content_length_n = static_cast<off_t>(body.len);
  set_content_type(r, kProblemType);
  ngx_int_t rc = ngx_http_send_header(r);
  if (rc == NGX_OK && !r->header_only) {
    rc = ngx_http_output_filter(r, chain);
  }
  ngx_http_finalize_request(r, rc);
  return NGX_DONE;
}

}  // namespace penstock
