#include "ngx_module/request/request.h"

#include <utility>

#include "shared/base/clock.h"

namespace penstock {
namespace {

// An internal redirect clears the contexts of all modules; the pool's cleanup list keeps ours. What
// a request held is given back at its end.
void end_request(void* data) noexcept {
  auto& state = *static_cast<RequestState*>(data);
  if (state.delayed) {
    --state.receipt.main->process->delayed;
    undo(state.receipt);
  } else if (!state.settled && state.passes) {
    // It never became a job. What was too large costs nothing at all, whoever found out, nor does
    // a failure of ours.
    const ngx_uint_t status = state.request->headers_out.status;
    refund(state.receipt,
           status == NGX_HTTP_REQUEST_ENTITY_TOO_LARGE || status >= NGX_HTTP_INTERNAL_SERVER_ERROR);
  }
  release(state.receipt);
}

}  // namespace

void RequestState::forget_answer() noexcept {
  answer_begun = answer_is_problem = answer_is_events = answer_waits = false;
  failed_status = 0;
  answer_left = -1;
  chunks = 0;
  eta_ms = 0;
  accepted_ns = begun_ns = 0;
  runs = false;
  answer = AnswerStream();
  job_id_size = 0;
  counts = duplicate = overdue = false;
  websocket = nullptr;
  file = nullptr;
  for (; answer_header_count > 0; --answer_header_count) {
    answer_headers[answer_header_count - 1]->hash = 0;  // Nginx passes it over
  }
}

namespace {

// By penstock_hide_header.
bool is_hidden(ngx_http_request_t* r, std::string_view key) noexcept {
  constexpr size_t kLongest = 64;
  ngx_http_upstream_conf_t& u = loc_conf(r)->upstream;
  if (u.hide_headers == nullptr || u.hide_headers == NGX_CONF_UNSET_PTR || key.size() > kLongest) {
    return false;
  }
  u_char lower[kLongest];
  const ngx_uint_t hash = ngx_hash_strlow(lower, str(key).data, key.size());
  return ngx_hash_find(&u.hide_headers_hash, hash, lower, key.size()) != nullptr;
}

}  // namespace

bool RequestState::push_answer_header(ngx_http_request_t* r, std::string_view key,
                                      ngx_str_t value) noexcept {
  if (is_hidden(r, key)) {
    return true;
  }
  if (answer_headers == nullptr) {
    answer_headers = static_cast<ngx_table_elt_t**>(
        ngx_palloc(r->pool, kMostAnswerHeaders * sizeof(ngx_table_elt_t*)));
  }
  ngx_table_elt_t* header = answer_headers == nullptr || answer_header_count == kMostAnswerHeaders
                                ? nullptr
                                : push_header(r, key, value);
  if (header == nullptr) {
    return false;
  }
  answer_headers[answer_header_count++] = header;
  return true;
}

void give_all_back(RequestState& state) noexcept {
  undo(state.receipt);
  state.met.take_off(MetLimits::kCharged);
}

namespace {

// An internal redirect has led here. Where it leads, even to where it began, the limits have their
// say again; also those that an earlier answer was to do for, as none has come. A header filter
// that failed has emptied the list of headers.
void begin_anew(RequestState& state, bool headers_are_gone) noexcept {
  std::fill(std::begin(state.judged_in), std::end(state.judged_in), nullptr);
  state.held = nullptr;
  state.met.no_earlier();
  if (headers_are_gone) {
    std::fill(std::begin(state.rate_headers), std::end(state.rate_headers), nullptr);
    std::fill(std::begin(state.retry), std::end(state.retry), nullptr);
    state.degraded_header = nullptr;
    state.answer_header_count = 0;
  }
}

}  // namespace

RequestState* find_kept_state(ngx_http_request_t* r) noexcept {
  for (ngx_pool_cleanup_t* c = r->pool->cleanup; c != nullptr; c = c->next) {
    if (c->handler == end_request && static_cast<RequestState*>(c->data)->request == r) {
      auto* state = static_cast<RequestState*>(c->data);
      ngx_http_set_ctx(r, state, ngx_http_penstock_module);
      begin_anew(*state, r->filter_finalize != 0 && !std::exchange(state->emptied, true));
      return state;
    }
  }
  return nullptr;
}

RequestState* state_of(ngx_http_request_t* r) noexcept {
  RequestState* state = find_state(r);
  if (state == nullptr) {
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->pool, sizeof(RequestState));
    if (cleanup == nullptr) {
      return nullptr;
    }
    state =
        new (cleanup->data) RequestState;  // without (): what has no default value costs nothing
    state->request = r;
    state->came_ns = monotonic_ns();
    cleanup->handler = end_request;
    ngx_http_set_ctx(r, state, ngx_http_penstock_module);
  }
  return state;
}

std::string_view model_of(ngx_http_request_t* r, RequestState& state) noexcept {
  if (state.model_sought) {
    return view(state.model);
  }
  if (r->request_body == nullptr || !state.body_read) {
    state.body_wanted = true;
    return {};
  }
  state.model_sought = true;
  if (const http::BodyField model = body_of(r, state.search)[Body::kModel];
      model.type == http::BodyField::Type::kString) {
    state.model = str(line_of(r->pool, model));
  }
  return view(state.model);
}

}  // namespace penstock
