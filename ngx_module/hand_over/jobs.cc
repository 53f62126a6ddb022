#include "ngx_module/hand_over/jobs.h"

#include "ngx_module/hand_over/pass.h"
#include "ngx_module/hand_over/websocket.h"
#include "ngx_module/reply/page.h"
#include "ngx_module/request/request.h"

namespace penstock {
namespace {

constexpr ngx_uint_t kReads = NGX_HTTP_GET | NGX_HTTP_HEAD;

// "/jobs/ID", and neither the list nor a part of a job.
bool is_one_job(ngx_http_request_t* r) noexcept {
  std::string_view path = view(r->uri);
  path.remove_prefix(ngx_min(loc_conf(r)->jobs_path.len, path.size()));
  return path.size() > 1 && path.find('/', 1) == std::string_view::npos;
}

}  // namespace

ngx_int_t ask_about_jobs(ngx_http_request_t* r) noexcept {
  RequestState* state = state_of(r);
  if (state == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (const ngx_int_t rc = is_one_job(r)
                               ? check_method(r, kReads | NGX_HTTP_DELETE, "GET, HEAD, DELETE")
                               : check_method(r, kReads, "GET, HEAD");
      rc != NGX_DECLINED) {
    return rc;
  }
  state->asks_upgrade = is_handshake(r);
  if (state->asks_upgrade && is_foreign(r)) {
    return refuse_page(r, {.status = 403,
                           .detail = "A page of another site may not listen here.",
                           .code = "forbidden"});
  }
  state->passes = true;
  return hand_to_upstream(r, *state);
}

ngx_int_t ask_as_operator(ngx_http_request_t* r) noexcept {
  RequestState* state = state_of(r);
  return state == nullptr ? NGX_HTTP_INTERNAL_SERVER_ERROR : hand_to_upstream(r, *state);
}

void bind_jobs(ngx_conf_t* cf) noexcept {
  const MainConf& main = *main_conf(cf);
  for (LocConf* pass : main.passes) {
    for (const LocConf* jobs : main.jobs) {
      if (jobs->server == pass->server && pass->jobs_path.len == 0) {
        pass->jobs_path = jobs->jobs_path;
      }
    }
    if (pass->jobs_path.len == 0) {
      ngx_str_set(&pass->jobs_path, "/jobs");
    }
  }
}

}  // namespace penstock
