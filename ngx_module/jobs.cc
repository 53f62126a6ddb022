#include "ngx_module/jobs.h"

#include "ngx_module/page.h"
#include "ngx_module/pass.h"
#include "ngx_module/request.h"
#include "ngx_module/websocket.h"

namespace penstock {

ngx_int_t ask_about_jobs(ngx_http_request_t* r) noexcept {
  RequestState* state = state_of(r);
  if (state == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  constexpr ngx_uint_t kMethods = NGX_HTTP_GET | NGX_HTTP_HEAD | NGX_HTTP_DELETE;
  if (const ngx_int_t rc = check_method(r, kMethods, "GET, HEAD, DELETE"); rc != NGX_DECLINED) {
    return rc;
  }
  state->passes = true;
  state->asks_upgrade = is_handshake(r);
  return hand_to_upstream(r, *state);
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
