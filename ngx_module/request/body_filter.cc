#include "ngx_module/nginx.h"

#include "ngx_module/request/body_filter.h"

#include "ngx_module/request/request.h"

namespace penstock {
namespace {

ngx_http_request_body_filter_pt next_body_filter;

// Every body, whoever reads it: a redirect may lead to where its fields matter.
ngx_int_t body_filter(ngx_http_request_t* r, ngx_chain_t* in) noexcept {
  const MainConf& main = *main_conf(r);
  if (r == r->main && in != nullptr && !(main.limits.empty() && main.passes.empty())) {
    if (RequestState* state = state_of(r); state != nullptr && state->search.found == nullptr) {
      look_into(r, state->search, in);
    }
  }
  return next_body_filter(r, in);
}

}  // namespace

void install_body_filter() noexcept {
  next_body_filter = ngx_http_top_request_body_filter;
  ngx_http_top_request_body_filter = body_filter;
}

}  // namespace penstock
